"""Monet in PyTorch by the dense formulas, with the published checkpoints' tensor names.

A peer to compare numbers and speed with: every expert is computed for every token, the routing
probabilities (mostly zeros) weight them, as in the authors' code.
"""
import json
import math
import os
from statistics import NormalDist

import torch
from torch import nn
from torch.nn import functional as F


class RMSNorm(nn.Module):
    def __init__(self, width: int, epsilon: float):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.epsilon = epsilon

    def forward(self, x):
        y = x.float()
        y = y * torch.rsqrt(y.square().mean(-1, keepdim=True) + self.epsilon)
        return self.weight * y.to(x.dtype)


class Attention(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.heads, self.groups = c["num_attention_heads"], c["num_key_value_heads"]
        self.width = c.get("head_dim") or c["hidden_size"] // self.heads
        d, bias = c["hidden_size"], c.get("attention_bias", False)
        self.q_proj = nn.Linear(d, self.heads * self.width, bias=bias)
        self.k_proj = nn.Linear(d, self.groups * self.width, bias=bias)
        self.v_proj = nn.Linear(d, self.groups * self.width, bias=bias)
        self.o_proj = nn.Linear(self.heads * self.width, d, bias=bias)

    def forward(self, x, cosine, sine, cache=None):
        B, T, _ = x.shape

        def split(y, heads):
            return y.view(B, T, heads, self.width).transpose(1, 2)

        def rotate(y):
            low, high = y.chunk(2, -1)
            return y * cosine.to(y.dtype) + torch.cat([-high, low], -1) * sine.to(y.dtype)

        q, k = rotate(split(self.q_proj(x), self.heads)), rotate(split(self.k_proj(x), self.groups))
        v = split(self.v_proj(x), self.groups)
        if cache is not None:
            if cache:
                k, v = torch.cat([cache[0], k], 2), torch.cat([cache[1], v], 2)
            cache[:] = [k, v]
        if self.groups != self.heads:
            k, v = (y.repeat_interleave(self.heads // self.groups, 1) for y in (k, v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=T > 1)
        return self.o_proj(y.transpose(1, 2).reshape(B, T, -1))


class Router(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.heads, self.experts = c["moe_heads"], c["moe_experts"]
        self.w1 = nn.Linear(c["hidden_size"], self.heads * self.experts, bias=False)
        self.w2 = nn.Linear(c["hidden_size"], self.heads * self.experts, bias=False)
        self.norm1 = nn.BatchNorm1d(self.heads, affine=False)
        self.norm2 = nn.BatchNorm1d(self.heads, affine=False)
        self.threshold = NormalDist().inv_cdf(1 - c["moe_topk"] / self.experts)

    def side(self, h, weight, norm):
        B, T, _ = h.shape
        z = weight(h).float().view(B * T, self.heads, self.experts)
        with torch.no_grad():
            n = norm(z)
            kept = n >= n.amax(-1, keepdim=True).clamp(max=self.threshold)
        g = torch.softmax(z.masked_fill(~kept, -math.inf), -1)
        return z.view(B, T, self.heads, self.experts), g.view(B, T, self.heads, self.experts)

    def forward(self, h):
        return self.side(h, self.w1, self.norm1), self.side(h, self.w2, self.norm2)


def squared_relu(x):
    return torch.relu(x).square()


class HorizontalExperts(nn.Module):
    def __init__(self, c):
        super().__init__()
        d, E, m = c["hidden_size"], c["moe_experts"], c["moe_dim"]
        self.u = nn.Linear(d, E * m)
        self.v = nn.Linear(E * m, d, bias=False)
        self.b = nn.Parameter(torch.zeros(E, d))
        self.experts = E

    def forward(self, h, g1, g2):
        B, T, _ = h.shape
        g1, g2 = g1.to(h.dtype), g2.to(h.dtype)
        a = squared_relu(self.u(h)).view(B, T, self.experts, -1)
        mixed = torch.einsum("bthi,btim->bthm", g1, a)
        c = torch.einsum("bthj,bthm->btjm", g2, mixed).flatten(2)
        return self.v(c) + g2.sum(2) @ self.b.to(h.dtype)


class VerticalExperts(nn.Module):
    def __init__(self, c):
        super().__init__()
        d, E, m = c["hidden_size"], c["moe_experts"], c["moe_dim"]
        self.u1, self.u2 = nn.Linear(d, E * m // 2), nn.Linear(d, E * m // 2)
        for name in ["v11", "v12", "v21", "v22"]:
            setattr(self, name, nn.Linear(E * m // 2, d // 2, bias=False))
        self.b1, self.b2 = nn.Parameter(torch.zeros(E, d // 2)), nn.Parameter(torch.zeros(E, d // 2))
        self.experts = E

    def forward(self, h, g1, g2):
        B, T, _ = h.shape
        g1, g2 = g1.to(h.dtype), g2.to(h.dtype)
        a = squared_relu(self.u1(h)).view(B, T, self.experts, -1)
        e = squared_relu(self.u2(h)).view(B, T, self.experts, -1)
        s1, s2 = g1.sum(2), g2.sum(2)
        a_mixed = torch.einsum("bthi,btim->bthm", g1, a)
        e_mixed = torch.einsum("bthj,btjm->bthm", g2, e)
        upper = (
            self.v11((s1.unsqueeze(-1) * a).flatten(2))
            + self.v12(torch.einsum("bthi,bthm->btim", g1, e_mixed).flatten(2))
            + s1 @ self.b1.to(h.dtype))
        lower = (
            self.v21(torch.einsum("bthj,bthm->btjm", g2, a_mixed).flatten(2))
            + self.v22((s2.unsqueeze(-1) * e).flatten(2))
            + s2 @ self.b2.to(h.dtype))
        return torch.cat([upper, lower], -1)


class DenseFeedForward(nn.Module):
    def __init__(self, c):
        super().__init__()
        d, width = c["hidden_size"], c["intermediate_size"]
        self.gate_proj = nn.Linear(d, width, bias=False)
        self.up_proj = nn.Linear(d, width, bias=False)
        self.down_proj = nn.Linear(width, d, bias=False)

    def forward(self, h):
        return self.down_proj(F.silu(self.gate_proj(h)) * self.up_proj(h))


class Layer(nn.Module):
    def __init__(self, c, index: int):
        super().__init__()
        self.input_layernorm = RMSNorm(c["hidden_size"], c["rms_norm_eps"])
        self.post_attention_layernorm = RMSNorm(c["hidden_size"], c["rms_norm_eps"])
        self.self_attn = Attention(c)
        if c["model_type"] == "llama":
            self.mlp = DenseFeedForward(c)
            return
        self.moe = (VerticalExperts if c["moe_decompose"] == "vertical" else HorizontalExperts)(c)
        if index % c["moe_groups"] == 0:
            self.router = Router(c)

    def forward(self, x, rotations, routing, cache=None):
        x = x + self.self_attn(self.input_layernorm(x), *rotations, cache)
        h = self.post_attention_layernorm(x)
        if hasattr(self, "mlp"):
            return x + self.mlp(h), None
        if hasattr(self, "router"):
            routing = self.router(h)
        (_, g1), (_, g2) = routing
        return x + self.moe(h, g1, g2), routing


class Decoder(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.embed_tokens = nn.Embedding(c["vocab_size"], c["hidden_size"])
        self.layers = nn.ModuleList([Layer(c, index) for index in range(c["num_hidden_layers"])])
        self.norm = RMSNorm(c["hidden_size"], c["rms_norm_eps"])


class MonetForCausalLM(nn.Module):
    """Logits, and the routings of the layers that own a router."""

    def __init__(self, c: dict):
        super().__init__()
        self.config = c
        self.model = Decoder(c)
        self.lm_head = nn.Linear(c["hidden_size"], c["vocab_size"], bias=False)
        if c.get("tie_word_embeddings"):
            self.lm_head.weight = self.model.embed_tokens.weight

    def rotations(self, length: int):
        c = self.config
        width = c.get("head_dim") or c["hidden_size"] // c["num_attention_heads"]
        base, stretch = c.get("rope_theta", 10000.0), 1.0
        scaling = c.get("rope_scaling")
        if scaling and scaling.get("type", scaling.get("rope_type")) == "linear":
            stretch = scaling["factor"]
        elif scaling and length > c["max_position_embeddings"]:
            ratio = scaling["factor"] * length / c["max_position_embeddings"] - (scaling["factor"] - 1)
            base *= ratio ** (width / (width - 2))
        frequencies = 1.0 / base ** (torch.arange(0, width, 2).float() / width)
        angles = torch.outer(torch.arange(length).float() / stretch, frequencies)
        angles = torch.cat([angles, angles], -1)
        return angles.cos(), angles.sin()

    def forward(self, ids, caches=None, last_only=False):
        """`caches`, a list for every layer, keeps keys and values: a whole prompt, then token by token."""
        x = self.model.embed_tokens(ids)
        earlier = caches[0][0].shape[2] if caches and caches[0] else 0
        cosine, sine = self.rotations(earlier + ids.shape[1])
        rotations, routing, routings = (cosine[earlier:], sine[earlier:]), None, []
        for index, layer in enumerate(self.model.layers):
            previous = routing
            x, routing = layer(x, rotations, routing, None if caches is None else caches[index])
            if routing is not None and routing is not previous:
                routings.append(routing)
        if last_only:
            x = x[:, -1:]
        return self.lm_head(self.model.norm(x)), routings

    @classmethod
    def load(cls, folder: str, dtype=torch.float32):
        """A model from a checkpoint folder, single file or shards."""
        from safetensors.torch import load_file

        with open(os.path.join(folder, "config.json")) as file:
            config = json.load(file)
        model = cls(config)
        index = os.path.join(folder, "model.safetensors.index.json")
        names = ["model.safetensors"]
        if os.path.exists(index):
            with open(index) as file:
                names = sorted(set(json.load(file)["weight_map"].values()))
        tensors = {}
        for name in names:
            tensors.update(load_file(os.path.join(folder, name)))
        if config.get("tie_word_embeddings"):
            tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
        model.load_state_dict({name: t.to(dtype) if t.is_floating_point() else t for name, t in tensors.items()})
        return model.eval()


def auxiliary_losses(routings, uniformity: str = "full"):
    """The uniformity and ambiguity losses (equations 16 and 17), averaged over routers."""
    uniform, ambiguous = [], []
    for routing in routings:
        for z, g in routing:
            p = (torch.softmax(z, -1) if uniformity == "full" else g).mean((0, 1))
            uniform.append(-p.clamp(min=1e-8).log().mean() / 2)
            ambiguous.append((1 - g.amax(-1)).mean() / 2)
    return 2 * torch.stack(uniform).mean(), 2 * torch.stack(ambiguous).mean()
