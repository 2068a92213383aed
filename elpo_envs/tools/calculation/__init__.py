"""The calculator's child process. It runs alone, so nothing here imports the rest of the package: only relative
imports, which hold under any name of this one.
"""
