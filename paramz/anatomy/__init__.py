"""What a model is made of: its tensors and their axes, blocks, attention, experts, embeddings.

Knows no parametrization; `paramz.plan` decides what a scheme means for what is found here.
"""
