"""An optimizer of your own: steps of the sign of an averaged gradient, as Lion takes them (Chen et al., 2023).

roadmap run --steps recipe --plugin docs/examples/optimizer.py \\
    --set recipe.optimizer=lion-like --set recipe.learning_rate=4e-4
"""

import roadmap


@roadmap.optimizer("lion-like", uses=["betas"])
def lion_like(groups: list[dict], recipe: roadmap.Recipe):
    import torch

    class LionLike(torch.optim.Optimizer):
        @torch.no_grad()
        def step(self, closure=None):
            for group in self.param_groups:
                for weight in group["params"]:
                    if weight.grad is None:
                        continue
                    average = self.state[weight].setdefault("average", torch.zeros_like(weight))
                    blended = average.lerp(weight.grad, 1 - recipe.betas[0])
                    weight.mul_(1 - group["lr"] * group["weight_decay"]).sub_(blended.sign_(), alpha=group["lr"])
                    average.lerp_(weight.grad, 1 - recipe.betas[1])

    return LionLike(groups, {"lr": recipe.learning_rate})
