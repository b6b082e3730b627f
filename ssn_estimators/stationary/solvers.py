"""Linear algebra of the stationary moments: Lyapunov equations and accelerated iterations."""

import torch

__all__ = ["Anderson", "Lyapunov"]


class Lyapunov:
    r"""Solver of A P + P A^T + Q = 0 by doubling, where A = J - pace / 2.

    P = C P C^T + 2 s M Q M^T with M = (s - A)^{-1} and the Cayley transform C = 2 s M - I.
    With s = 1 / tau_eta + pace / 2, M is also what X needs, and near the best choice.
    """

    def __init__(self, system, gain, pace, accuracy=1e-16):
        pace = pace[..., None]
        shift = 1 / system.tau_eta + pace / 2
        jacobian = system.rate[:, None] * system.recurrence(gain)
        inverse = torch.linalg.inv_ex((shift + pace / 2) * system.eye - jacobian).inverse
        power = (2 * shift * inverse - system.eye).to(system.dtype)
        self.shift, self.inverse = shift.to(system.dtype), inverse.to(system.dtype)
        self.powers = []
        for _ in range(60):
            size = torch.linalg.matrix_norm(power)
            self.stable = size**2 < accuracy
            if (self.stable | ~(size < 1e100)).all():  # powers of an unstable one overflow soon
                break
            # each input stops for itself, so that its result does not depend on the others
            power = power.masked_fill(self.stable[:, None, None], 0.0)
            self.powers.append(power)
            power = power @ power

    def solve(self, source):
        return self._doubled(self.inverse, source, self.powers)

    def solve_adjoint(self, source):
        """Solution of A^T P + P A + Q = 0."""
        return self._doubled(self.inverse.mT, source, [power.mT for power in self.powers])

    def _doubled(self, inverse, source, powers):
        solution = 2 * self.shift * (inverse @ source.to(inverse) @ inverse.mT)
        for power in powers:
            solution = torch.baddbmm(solution, power @ solution, power.mT)
        return solution


class Anderson:
    """Anderson acceleration of the fixed-point iterations z -> g(z) in the rows of a batch.

    For a linear g and a history that is long enough, it is GMRES.
    """

    def __init__(self, history):
        self.history, self.columns, self.last = history, [], None

    def __call__(self, result, residual, trusted=None):
        """Next iterates, from g(z) and g(z) - z.

        Rows that are not `trusted`, (n_rows, 1), since they did not iterate the same g as in
        the call before, forget their history and go on from g(z).
        """
        if self.last is not None:
            column = (result - self.last[0], residual - self.last[1])
            self.columns = [*self.columns, column][-self.history :]
        if trusted is not None:
            self.columns = [tuple(x.masked_fill(~trusted, 0.0) for x in c) for c in self.columns]
        self.last = (result, residual)
        if not self.columns:
            return result.clone()
        results, residuals = (torch.stack(x, 2) for x in zip(*self.columns, strict=True))
        size = residuals.norm(dim=1, keepdim=True)
        scale = torch.where(size > 0, 1 / size, 0.0)
        residuals, results = residuals * scale, results * scale
        # the small ridge only decides where columns are linearly dependent
        gram = residuals.mT @ residuals + 1e-14 * torch.eye(len(self.columns)).to(residuals)
        mixture = torch.linalg.solve_ex(gram, residuals.mT @ residual[..., None]).result
        return result - (results @ mixture)[..., 0]

    def keep(self, rows):
        """Go on with these rows only."""
        self.columns = [tuple(x[rows] for x in c) for c in self.columns]
        self.last = tuple(x[rows] for x in self.last)
