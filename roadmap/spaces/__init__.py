"""Design spaces as plain data: which parameters vary and how, and what a design must satisfy.

May import `roadmap.network`, `roadmap.serialization` and the modules beside this package. Which rung a space begins
with is not known here (roadmap/study/spaces.py).
"""
