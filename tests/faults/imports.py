"""Imported once by the process that all children are forked from."""

import cv2  # noqa: F401
import lightning_fabric  # noqa: F401
import OpenEXR  # noqa: F401
import torch
import torch.utils.tensorboard  # noqa: F401

import core_exp_runner  # noqa: F401
import immersivedepth.batch
import immersivedepth.field
import immersivedepth.training.modes  # noqa: F401

torch.set_num_threads(1)
