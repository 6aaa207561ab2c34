"""When negative prompts act: the timing protocol.

Ban et al., Understanding the Impact of Negative Prompts (arXiv 2406.02965), measured again with
intervals, controls and all cases kept: strength of attention over time, the start/stop grid,
reverse activation, the inducing measure and the momentum cosine.
"""
