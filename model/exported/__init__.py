"""The forward pass compiled beforehand (torch.export, AOTInductor): a package for one set of weights, torch and processor.

``python -m model.exported CHECKPOINT`` makes one (``program``), its name says what it belongs to (``package``), and it
runs (``runner``) in place of ``HamiltonianModel.forward``: float32, CPU, inference, molecules. Wherever there is none, or it
does not take a batch, the network itself runs. A package is machine code: load it from folders nobody else can write to.
"""
