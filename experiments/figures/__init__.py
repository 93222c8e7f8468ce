"""What people look at in a run: figures, tables and pages, each drawn by the module that is named after its subject.

`log` in each module puts them into a run, through an Album.
"""
