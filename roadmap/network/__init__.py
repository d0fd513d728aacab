"""A design as a network: resolved into layers, counted, drawn, built, and filled with published weights.

May import the modules beside this package; studies and runs it does not know. Only
`modules` and `weights` import torch at once; others do so where a library's model is counted or built.
"""
