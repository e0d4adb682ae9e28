-- One finished search: of :trials trials one in :every came to its end; rows are as wide as real ones.
INSERT INTO trials (job_id, number, status, reason, attempt, losses, parameters, origin, reached, values, why, progress,
                    plan, result, efficiency, created_at, started_at, finished_at)
  SELECT :job, n, CASE WHEN n % :every = 0 THEN 'succeeded' ELSE 'pruned' END, 'completed', 1, 0, jsonb_build_object(
  'training.optimizer.learning_rate', power(10, -4 * random()), 'training.optimizer.weight_decay', random() / 10,
  'training.label_smoothing', random() * 0.3, 'training.batch_size', 16 + (random() * 496)::int,
  'training.optimizer.name', (ARRAY['sgd', 'adam', 'adamw'])[1 + floor(random() * 3)::int]), 'tpe',
         CASE WHEN n % :every = 0 THEN 1 ELSE 0.01 END,
         CASE WHEN n % :every = 0 THEN jsonb_build_object('validation/accuracy', random(),
           'device_seconds', 100 * random()) END,
         'rung 0 (1 % of the training): validation/accuracy 0.6212 is rank 31 of 60; the best 15 go on',
         :progress, :report, :report, :report, now() + n * interval '1 second', now() + n * interval '1 second',
         now() + n * interval '1 second' + interval '10 seconds'
  FROM generate_series(0, :trials - 1) AS n;
INSERT INTO rung_values (job_id, trial, rung, attempt, fraction, step, images, values)
  SELECT :job, n, rung, 1, 0.01 * power(4, rung), 100 * rung, 512, jsonb_build_object('validation/accuracy', random())
  FROM generate_series(0, :trials - 1) AS n, generate_series(0, 2) AS rung WHERE rung = 0 OR n % (:every * rung) = 0;
INSERT INTO attempts (id, job_id, trial, number, worker, incarnation, device, devices, last_seq, made_progress, reason,
                      booked_at, started_at, finished_at, held_seconds, training_seconds, evaluation_seconds)
  SELECT 'att_' || :job || '_' || n || '_' || number, :job, n, number, 'host-a', 'one', 'cpu', 1, 50, true, 'completed',
         now(), now(), now() + n * interval '1 second' + number * interval '3 seconds', 3 + random(), 2.5, 0.4
  FROM generate_series(0, :trials - 1) AS n, generate_series(1, 3) AS number WHERE number = 1 OR n % :every = 0;
INSERT INTO checkpoints (id, job_id, trial, attempt, path, step, epoch, metrics, size_bytes, sha256, files, kept_because,
                         deleted_at)
  SELECT 'ckpt_' || :job || '_' || n, :job, n, 1, 'jobs/' || :job || '/' || n, 100, 1, '{}', 1, '', '{}', 'best',
         CASE WHEN n >= 5 THEN now() END
  FROM generate_series(0, :trials - 1) AS n;
INSERT INTO events (job_id, seq, type, trial, level, message, data)
  SELECT :job, n, 'trial.completed', n / 3, 'info', 'Trial: Training finished', '{}'
  FROM generate_series(1, 3 * :trials) AS n;
INSERT INTO metric_chunks (job_id, trial, name, first_step, last_step, steps, epochs, times, values)
  SELECT :job, n, name, 1, 20, ARRAY(SELECT generate_series(1, 20)), array_fill(1.0::float8, ARRAY[20]),
         array_fill(1.0::float8, ARRAY[20]), array_fill(0.5::float8, ARRAY[20])
  FROM generate_series(0, :trials - 1) AS n, unnest(ARRAY['train/loss', 'validation/accuracy', 'validation/loss']) AS name;
