"""The MoE layer's products through torch._grouped_mm, to compare with expert_ffn of ops_bench on the same GPU: python3 grouped_mm.py"""
import torch
import torch.nn.functional as F

HIDDEN, INNER, EXPERTS, K = 2048, 768, 128, 8


def median_us(body, repeats=15):
    body()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        body()
    times = []
    for _ in range(repeats + 3):
        start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        graph.replay()
        stop.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(stop) * 1000)
    return sorted(times[3:])[repeats // 2]


def main():
    device, dtype = "cuda", torch.bfloat16
    a, b = (torch.randn(8192, 8192, device=device, dtype=dtype) for _ in range(2))
    print(f"matrix product 8192^3: {2 * 8192**3 / median_us(lambda: a @ b) * 1e-6:.0f} TFLOP/s")
    w13 = torch.randn(EXPERTS, 2 * INNER, HIDDEN, device=device, dtype=dtype) * 0.02
    w2 = torch.randn(EXPERTS, HIDDEN, INNER, device=device, dtype=dtype) * 0.02
    for n in (64, 256, 512, 1024, 2048, 4096, 8192, 16384):
        x = torch.randn(n, HIDDEN, device=device, dtype=dtype)
        pairs = torch.cat([torch.randperm(EXPERTS) for _ in range(n * K // EXPERTS)]).to(device)
        order = torch.argsort(pairs, stable=True)
        inverse = torch.argsort(order)
        offsets = torch.bincount(pairs, minlength=EXPERTS).cumsum(0).to(torch.int32)
        weights = torch.full((n * K, 1), 0.125, device=device, dtype=dtype)

        def products():
            gate_up = torch._grouped_mm(x[order // K], w13.transpose(1, 2), offs=offsets)
            gate, up = gate_up.chunk(2, dim=-1)
            return torch._grouped_mm(F.silu(gate) * up, w2.transpose(1, 2), offs=offsets)

        def layer():
            return (products() * weights)[inverse].view(n, K, HIDDEN).sum(1)

        rows, gate_up = x[order // K], torch._grouped_mm(x[order // K], w13.transpose(1, 2), offs=offsets)
        inner = gate_up[:, :INNER].contiguous()

        def alone():
            torch._grouped_mm(rows, w13.transpose(1, 2), offs=offsets)
            torch._grouped_mm(inner, w2.transpose(1, 2), offs=offsets)

        print(f"torch._grouped_mm {n:6d} tokens: two products alone {median_us(alone):8.1f} us, with gather and SwiGLU {median_us(products):8.1f}, whole layer {median_us(layer):8.1f}", flush=True)


main()
