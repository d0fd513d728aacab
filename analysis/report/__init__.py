"""The report: one HTML page that needs no network and no other file, and can be read without its script.

May import `roadmap` and all of `analysis`. New statistics do not belong here.
"""
