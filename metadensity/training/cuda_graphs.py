"""Updates on a GPU as CUDA graphs: one launch a step in place of one for each of its thousands of small operations.

Departure from the plain update: values are looked at when all is done, so where a loss is not a number the weights are
lost with it; what the run kept is not.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import torch
from torch import Tensor

from metadensity.episode import Episode

_recording = threading.Lock()  # trainers in several threads share the device; one records at a time


class GraphedUpdate:
    """``update`` of episodes on the CPU, recorded once for each shape of theirs and replayed from then on.

    update: a function of an episode on the device that changes weights in place and returns a tensor, with no look at
        any value on the way. The first episode of a shape goes through it as it is, the second is recorded.
    A replay makes the operations that were recorded; the function itself is the slow twin.
    """

    def __init__(self, update: Callable[[Episode], Tensor], device: torch.device) -> None:
        self.update, self.device = update, device
        self.stream = torch.cuda.Stream(device)
        self.seen: set[tuple[torch.Size, torch.Size]] = set()
        self.graphs: dict[tuple[torch.Size, torch.Size], tuple[torch.cuda.CUDAGraph, Episode, Tensor]] = {}

    def __call__(self, episode: Episode) -> Tensor:
        """What ``update`` returns, on the device, once it is done; valid until the next call."""
        self.stream.wait_stream(torch.cuda.current_stream(self.device))  # which set the learning rate, say
        with torch.cuda.stream(self.stream):
            result = self._update(episode)
        self.stream.synchronize()  # other streams may read the result, and the weights, from here on
        return result

    def _update(self, episode: Episode) -> Tensor:
        shape = episode.support.shape, episode.query.shape
        if shape not in self.seen:
            with _recording:
                self.seen.add(shape)
                return self.update(episode.to(self.device))
        if shape not in self.graphs:
            self.graphs[shape] = self._record(episode)
        graph, inputs, result = self.graphs[shape]
        inputs.support.copy_(episode.support)
        inputs.query.copy_(episode.query)
        graph.replay()
        return result

    def _record(self, episode: Episode) -> tuple[torch.cuda.CUDAGraph, Episode, Tensor]:
        with _recording:
            inputs, graph = episode.to(self.device), torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, stream=self.stream, capture_error_mode="thread_local"):
                result = self.update(inputs)
        return graph, inputs, result
