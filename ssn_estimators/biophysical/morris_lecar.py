"""`MorrisLecar`: the cell of Morris and Lecar, and networks of such cells."""

from __future__ import annotations

from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.autograd.function import once_differentiable

from ssn_estimators._sklearn import count_steps
from ssn_estimators._threads import one_blas_thread, share_out
from ssn_estimators._torch import to_tensor

if TYPE_CHECKING:
    from typing import Any

    from ssn_estimators._typing import ArrayLike

try:
    from ssn_estimators.biophysical import compiled as _compiled
except ImportError:  # Numba comes with an extra
    _compiled = None

__all__ = ["MorrisLecar"]

SMALL_BLOCK = 2**14  # cells simulated at once: their state fits the cache


@dataclass(frozen=True)
class MorrisLecar:
    r"""The cell of Morris and Lecar, at the onset of firing without input.

    .. math::
        C \dot V &= I - g_{Ca} m(V) (V - E_{Ca}) - g_K w (V - E_K) - g_L (V - E_L), \\
        \dot w &= \phi \cosh \frac{V - V_3}{2 V_4} \, (w_\infty(V) - w), \\
        m &= \tfrac12 (1 + \tanh \tfrac{V - V_1}{V_2}), \qquad
        w_\infty = \tfrac12 (1 + \tanh \tfrac{V - V_3}{V_4}),

    with potentials in mV, times in ms, conductances in mS/cm**2, C in uF/cm**2 and currents in
    uA/cm**2. The current of an input z is ``gain * z + onset``; between cells passes the
    transmitter :math:`T = 1 / (1 + \exp(-(V - V_T) / K_T))`.

    Parameters
    ----------
    g_ca, g_k, g_l : float, default=4.0, 8.0 and 2.0
        Conductances of calcium, potassium and leak.
    e_ca, e_k, e_l : float, default=120.0, -84.0 and -60.0
        Their reversal potentials.
    v1, v2 : float, default=-1.2 and 18.0
        Where half of the calcium channels are open, and over which range they open.
    v3, v4 : float, default=12.0 and 17.0
        The same of the potassium channels.
    phi : float, default=1 / 15
        Rate of the potassium channels, in 1/ms.
    capacitance : float, default=20.0
        Capacitance C of the membrane.
    gain, onset : float, default=36.75 and 39.9
        Current of an input of 1, and without input.
    v_t, k_t : float, default=-3.0 and 8.0
        Where half of the transmitter is released, and over which range.
    """

    g_ca: float = 4.0
    g_k: float = 8.0
    g_l: float = 2.0
    e_ca: float = 120.0
    e_k: float = -84.0
    e_l: float = -60.0
    v1: float = -1.2
    v2: float = 18.0
    v3: float = 12.0
    v4: float = 17.0
    phi: float = 2 / 30
    capacitance: float = 20.0
    gain: float = 36.75
    onset: float = 39.9
    v_t: float = -3.0
    k_t: float = 8.0

    def step(
        self, v: torch.Tensor, w: torch.Tensor, current: torch.Tensor, dt: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """One semi-implicit Euler step: w first, and V with the new w.

        Parameters
        ----------
        v, w, current : Tensors of one shape
            Potential, open share of potassium channels, and current.
        dt : float
            In ms.

        Returns
        -------
        v, w : Tensors
        """
        x = (v - self.v3) / (2 * self.v4)
        half = torch.tanh(x)
        # tanh(2 x), and cosh(x), both from tanh(x)
        square = half * half
        target = 0.5 + half / (1 + square)
        pace = (dt * self.phi) * torch.cosh(x)
        w = w + pace * (target - w)
        m = 0.5 + 0.5 * torch.tanh((v - self.v1) / self.v2)
        ionic = self.g_ca * m * (v - self.e_ca) + self.g_k * w * (v - self.e_k)
        v = v + (dt / self.capacitance) * (current - ionic - self.g_l * (v - self.e_l))
        return v, w

    def transmitter(self, v: torch.Tensor) -> torch.Tensor:
        """Share of transmitter that is released at a potential.

        Parameters
        ----------
        v : Tensor
            Potentials in mV.
        """
        return torch.sigmoid((v - self.v_t) / self.k_t)

    def open_share(self, v: torch.Tensor) -> torch.Tensor:
        """The stationary w at a potential.

        Parameters
        ----------
        v : Tensor
            Potentials in mV.
        """
        return 0.5 + 0.5 * torch.tanh((v - self.v3) / self.v4)

    def rate(
        self,
        current: ArrayLike,
        *,
        duration: float = 2000.0,
        dt: float = 0.1,
        settling: float = 500.0,
    ) -> np.ndarray:
        """Firing rate at constant currents, by simulation.

        Parameters
        ----------
        current : array-like of shape (n,)
            Currents in uA/cm**2, one for each cell.
        duration, dt, settling : float
            Time in which spikes are counted, time step and the time before, in ms.

        Returns
        -------
        rate : ndarray of shape (n,)
            Upward crossings of 0 mV, in Hz: of the time between the first and the last.
        """
        current = to_tensor(current)
        v = torch.full_like(current, -60.0)
        w = self.open_share(v)
        n_settling = count_steps(settling, dt, "settling")
        n_steps = n_settling + count_steps(duration, dt, "duration")
        count = torch.zeros_like(v)
        first, last = torch.full_like(v, torch.nan), torch.full_like(v, torch.nan)
        for i in range(n_steps):
            before = v
            v, w = self.step(v, w, current, dt)
            if i >= n_settling:
                crossed = (before <= 0) & (v > 0)
                first = torch.where(crossed & first.isnan(), i * dt, first)
                last = torch.where(crossed, i * dt, last)
                count += crossed
        rate = 1000 * (count - 1) / (last - first)
        return torch.where(count > 1, rate, 1000 * count / duration).numpy()

    def respond(
        self,
        inputs: torch.Tensor,
        input_weights: torch.Tensor,
        recurrent_weights: torch.Tensor,
        start: torch.Tensor,
        *,
        n_steps: int,
        n_read: int,
        dt: float,
    ) -> torch.Tensor:
        """Mean transmitter of a network's cells at the end of a sequence of inputs.

        Parameters
        ----------
        inputs : Tensor of shape (..., n_samples, n_words, n_inputs)
            With any leading axes, here as below, of networks that are simulated side by side.
        input_weights : Tensor of shape (..., n_cells, n_inputs)
            W[post, input].
        recurrent_weights : Tensor of shape (..., n_cells, n_cells)
            W[post, pre].
        start : Tensor of shape (..., n_samples, n_cells) or (n_cells,)
            Potentials at the start.
        n_steps, n_read : int
            Time steps of each word, and those at the end over which is averaged.
        dt : float
            In ms.

        Returns
        -------
        mean : Tensor of shape (..., n_samples, n_cells)
        """
        tensors = (inputs, input_weights, recurrent_weights, start)
        single = all(x.dtype == torch.float32 for x in tensors)
        if _compiled and single and not any(x.requires_grad or x.is_cuda for x in tensors):
            return self._respond_compiled(*tensors, n_steps, n_read, dt)
        if _compiled and single and self._is_one_on_a_cpu(*tensors):
            words = inputs.movedim(-2, 0)
            outside = words @ (self.gain * input_weights.mT) + self.onset
            among = self.gain * recurrent_weights.mT
            return _Through.apply(outside, among, start, self, n_steps, n_read, dt)
        shape = _shape(*tensors)
        v = start.expand(shape)
        w = self.open_share(v)
        n_total = inputs.shape[-2] * n_steps
        total: Any = 0.0
        from_cells = self.gain * recurrent_weights.mT
        for i in range(n_total):
            if i % n_steps == 0:
                words = inputs[..., i // n_steps, :]
                from_input = words @ (self.gain * input_weights.mT) + self.onset
            current = from_input + self.transmitter(v) @ from_cells
            v, w = self.step(v, w, current, dt)
            if i >= n_total - n_read:
                total = total + self.transmitter(v)
        return total / n_read

    @staticmethod
    def _is_one_on_a_cpu(inputs, input_weights, recurrent_weights, start):
        """Whether gradients are those of one network, and of nothing but its input and weights."""
        matrices = input_weights.dim() == recurrent_weights.dim() == 2
        one = inputs.dim() == 3 and matrices and start.dim() <= 2
        return one and not start.requires_grad and not inputs.is_cuda

    def _constants(self, dt):
        return tuple(np.float32(x) for x in (dt, *astuple(self)))

    def _respond_compiled(
        self, inputs, input_weights, recurrent_weights, start, n_steps, n_read, dt
    ):
        """`respond` without gradients, in float32 and on all cores."""
        tensors = (inputs, input_weights, recurrent_weights, start)
        *leading, n_samples, n_cells = _shape(*tensors)
        inputs, input_weights, recurrent_weights, start = (x.detach().numpy() for x in tensors)
        gain, onset = np.float32(self.gain), np.float32(self.onset)

        def networks(x, *shape):
            return np.broadcast_to(x, (*leading, *shape)).reshape(-1, *shape)

        words = networks(inputs, *inputs.shape[-3:])
        turned = [np.swapaxes(gain * x, -1, -2) for x in (input_weights, recurrent_weights)]
        into, among = (networks(x, *x.shape[-2:]) for x in turned)
        start = networks(start, n_samples, n_cells)
        constants, shared = self._constants(dt), recurrent_weights.ndim == 2

        def work(part):
            v = np.array(start[part], order="C")
            # weights that all networks have are one matrix, for one product
            own = np.array(among[part][: 1 if shared else None], order="C")
            w, t = (f(torch.from_numpy(v)).numpy() for f in (self.open_share, self.transmitter))
            total, n_left = np.zeros_like(v), n_read - n_steps * words.shape[2]
            for i in range(words.shape[2]):
                outside = words[part, :, i] @ into[part] + onset
                n_left += n_steps  # of the steps that are read, up to the end of this word
                state = (x.reshape(len(own), -1, n_cells) for x in (v, w, t, total))
                outside = outside.reshape(len(own), -1, n_cells)
                _compiled.run(*state, own, outside, constants, n_steps, n_left)
            return total / np.float32(n_read)

        size = max(1, SMALL_BLOCK // (n_samples * n_cells))
        parts = share_out(work, [slice(i, i + size) for i in range(0, len(among), size)])
        return torch.from_numpy(np.concatenate(parts)).view(*leading, n_samples, n_cells)


class _Through(torch.autograd.Function):
    """Mean transmitter of one network, from the currents of every word, in compiled steps."""

    @staticmethod
    def forward(ctx, outside, among, start, cell, n_steps, n_read, dt):
        n_words, *shape = outside.shape
        states = [torch.empty(n_words * n_steps + 1, *shape) for _ in range(3)]
        start = start.expand(shape)
        for state, first in zip(
            states, (start, cell.open_share(start), cell.transmitter(start)), strict=True
        ):
            state[0] = first
        ctx.arrays = [x.numpy() for x in states]
        ctx.settings = cell._constants(dt), n_steps, n_read
        ctx.save_for_backward(among)
        currents = (x.detach().contiguous().numpy() for x in (among, outside))
        with one_blas_thread:
            total = _compiled.record(*ctx.arrays, *currents, *ctx.settings)
        return torch.from_numpy(total) / n_read

    @staticmethod
    @once_differentiable
    def backward(ctx, of_mean):
        (among,) = ctx.saved_tensors
        of_total = (of_mean / ctx.settings[2]).contiguous().numpy()
        with one_blas_thread:
            found = _compiled.trace_back(
                *ctx.arrays, of_total, among.contiguous().numpy(), *ctx.settings
            )
        return *(torch.from_numpy(x) for x in found), *5 * (None,)


def _shape(inputs, input_weights, recurrent_weights, start):
    """Of the state: leading axes of networks, samples and cells."""
    own = (inputs.shape[:-3], input_weights.shape[:-2], recurrent_weights.shape[:-2])
    leading = torch.broadcast_shapes(*own, start.shape[:-2])
    return (*leading, inputs.shape[-3], input_weights.shape[-2])
