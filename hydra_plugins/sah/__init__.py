"""Hydra plugins of SAH. Hydra imports every module here at every start: keep them light."""
