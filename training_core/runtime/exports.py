"""The exports that a job asks for, once its training is complete."""

from __future__ import annotations

from training_core.checkpoints.manifest import trial_folder
from training_core.contract.errors import Failed, Reason
from training_core.contract.model_card import digest
from training_core.contract.redaction import print_error
from training_core.contract.reports import ArtifactSaved
from training_core.contract.spec import ExportFormat
from training_core.engine.training import Training
from training_core.export.pictures import of_training
from training_core.export.write import Export, Exporter, read_trained, write
from training_core.storage.store import open_store

ALERT = "export_failed"


def export_models(training: Training) -> None:
    """Export the model that the job results in. The training is safe already: what fails here is only reported."""
    wanted = training.materials.run.spec.exports
    if not wanted or not training.ranks.first:
        return None
    try:
        exporter = _exporter(training)
    except Exception as problem:  # noqa: BLE001  see above
        return _tell(training, wanted, problem)
    for form in wanted:
        if training.run_dir.stop_requested():
            training.reports.alert(ALERT, f"the job was stopped before its export to {form}", format=form)
            continue
        try:
            _save(training, exporter.export(form))
        except Exception as problem:  # noqa: BLE001  an operator without a counterpart must not cost the model
            _tell(training, [form], problem)
    return training.reports.sync()


def _exporter(training: Training) -> Exporter:
    """From the checkpoint that the job results in, as anybody could make it again later."""
    state, materials, rule = training.state, training.materials, training.plan.early_stopping
    best = rule is None or rule.restore_best
    path = (best and state.best_checkpoint) or state.last_checkpoint
    if path is None:
        raise Failed(Reason.CHECKPOINT_INVALID, "the training has written no checkpoint")
    trained = read_trained(open_store(materials.run), path)
    pictures = of_training(materials.data, trained.preprocessing.image_size)
    return Exporter(trained, path, pictures, state.best_metrics if best else state.latest_metrics)


def _save(training: Training, export: Export) -> None:
    run, card = training.materials.run, export.card
    folder = f"{trial_folder(run)}/exports/{card.export}"
    write(open_store(run), folder, export)
    training.reports.say(
        ArtifactSaved(
            path=folder,
            artifact="export",
            format=card.export,
            step=training.state.best_step or training.state.step,
            size_bytes=sum(map(len, export.files.values())),
            files={name: len(content) for name, content in export.files.items()},
            sha256={name: digest(content) for name, content in export.files.items()},
            about=card.model_dump(mode="json", exclude={"files", "written_at"}),
        )
    )
    if export.warning is not None:
        training.reports.alert("export_accuracy", export.warning, format=card.export)


def _tell(training: Training, forms: list[ExportFormat], problem: Exception) -> None:
    print_error(problem)
    words = problem.message if isinstance(problem, Failed) else f"{type(problem).__name__}: {problem}"
    for form in forms:
        training.reports.alert(ALERT, f"no export to {form}: {words.splitlines()[0][:400]}", format=form)
