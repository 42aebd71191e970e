"""Using what training hands over: exports loaded through their zoo's own loader, predictions and metrics of them.

exported = load_export("work_dirs/vit_b/export")
rows = predict(exported, read_inputs(["photo.jpg"], exported.record.modality), batch_size=32)
"""

from mdpd_plugins.exports.evaluate import evaluate_export
from mdpd_plugins.exports.exported import ExportedModel
from mdpd_plugins.exports.inputs import Input, TableColumns, read_inputs
from mdpd_plugins.exports.load import load_export, load_folder
from mdpd_plugins.exports.output import FORMATS, check_out, write_rows
from mdpd_plugins.exports.predict import predict
from mdpd_plugins.exports.record import RECORD_FILE, ExportRecord, check_replaceable, read_record, record_of
from mdpd_plugins.exports.reloaded import check_reloads

__all__ = [
    "FORMATS",
    "RECORD_FILE",
    "ExportRecord",
    "ExportedModel",
    "Input",
    "TableColumns",
    "check_out",
    "check_reloads",
    "check_replaceable",
    "evaluate_export",
    "load_export",
    "load_folder",
    "predict",
    "read_inputs",
    "read_record",
    "record_of",
    "write_rows",
]
