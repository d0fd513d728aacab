"""Design spaces as plain data: which parameters vary and how, what a design must satisfy, and the width at equal cost.

May import `roadmap.network`, `roadmap.serialization` and the modules beside this package. Which rung a space begins
with is not known here (roadmap/study/spaces.py).
"""
