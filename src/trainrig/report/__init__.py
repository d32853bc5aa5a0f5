"""One self-contained page from any folder of runs; see ``trainrig.report.write.write_report``."""
