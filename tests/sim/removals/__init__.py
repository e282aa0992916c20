"""The rules, taken away one at a time: the schedules, or a story, must notice. Begin with
``ablation.py``."""
