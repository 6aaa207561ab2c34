"""Learning to write negative prompts: imitation first (SFT), then reward (RL).

An open implementation of NegOpt (arXiv 2403.07605), whose authors released data only: every choice
made here that the paper's readable text does not settle is negbench's own, and is named so.
"""
