"""What people look at in a run: figures, tables and pages, each drawn by the module that is named after its subject.

`dashboard` and `study.log` put them into a run, through an Album.
"""
