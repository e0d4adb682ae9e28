"""What is wrong with the images, what is left of them after cleaning, and the report about both.

measures     `measure(content, pixels)`: one value for each of FIELDS, in the pass that decodes
duplicates   `group(columns)`: the columns `exact_group` and `near_group` of the items
selection    `select(items, dataset, classes)`, or `inspect` and then `check` where a report is due before the failure
data_report  the models of the report, which need pydantic alone
report       `make_report(items, selection, Facts(…), pack.pixels)` and `removed_lines(items, selection)`
label_errors after a first model: likely label errors and the hardest examples
"""
