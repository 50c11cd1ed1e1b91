/** Modules and layers, against plain JavaScript. */
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { core as mx, nn, utils } from "../src/index.ts";
import { randomFrom, temporaryFolder, values } from "./helpers/llm.ts";

const random = randomFrom(5);
const randomArray = (...shape: number[]): mx.MxArray => mx.reshape(mx.array(Float32Array.from({ length: shape.reduce((a, b) => a * b, 1) }, () => random() * 2 - 1)), shape);
const near = (list: readonly number[], digits = 5): unknown[] => list.map((x) => expect.closeTo(x, digits));
/** rows(x) times the transpose of w, plus b. */
function affine(x: number[][], w: number[][], b?: number[]): number[] {
  return x.flatMap((row) => w.map((column, j) => row.reduce((sum, v, k) => sum + v * (column[k] as number), b?.[j] ?? 0)));
}

class Block extends nn.Module {
  qProj = new nn.Linear(8, 8, false);
  layers = [new nn.Linear(8, 4), new nn.RMSNorm(4)];
  named = { first: new nn.Embedding(3, 4) };
  scale = mx.ones([2]);
  _hidden = mx.ones([3]);
  args = { size: 8, name: "block", list: [1, "two", null] };
  nothing: unknown = null;
  callback = (): number => 1;
  override forward(x: mx.MxArray): mx.MxArray {
    return x;
  }
}
const paths = (tree: unknown): string[] =>
  utils
    .treeFlatten(tree)
    .map(([path]) => path)
    .sort();

describe("Module", () => {
  test("parameters are arrays in members, lists, objects and modules, but not those with an underscore", () => {
    expect(paths(new Block().parameters())).toEqual(["layers.0.bias", "layers.0.weight", "layers.1.weight", "named.first.weight", "qProj.weight", "scale"]);
  });
  test("children, leafModules, modules, namedModules", () => {
    const block = new Block();
    expect(block.namedModules().map(([path]) => path)).toEqual(["", "qProj", "layers.0", "layers.1", "named.first"]);
    expect(block.modules()[0]).toBe(block);
    expect(
      utils
        .treeFlatten(block.children(), "", nn.Module.isModule)
        .filter(([, m]) => nn.Module.isModule(m))
        .map(([path]) => path),
    ).toEqual(["qProj", "layers.0", "layers.1", "named.first"]);
    expect(block.leafModules().qProj).toBe(block.qProj);
  });
  test("loadWeights takes snake_case names; saveWeights writes them", () => {
    const file = join(temporaryFolder(), "weights.safetensors");
    const block = new Block();
    block.saveWeights(file);
    const saved = mx.load(file) as Record<string, mx.MxArray>;
    expect(Object.keys(saved).sort()).toEqual(["layers.0.bias", "layers.0.weight", "layers.1.weight", "named.first.weight", "q_proj.weight", "scale"]);
    const other = new Block().loadWeights(file);
    expect(values(other.qProj.weight)).toEqual(values(block.qProj.weight));
    expect(() => block.saveWeights("weights.bin")).toThrow(/safetensors/);
  });
  test("loadWeights is strict about extra and missing names, shapes and types, unless told otherwise", () => {
    const linear = new nn.Linear(2, 3);
    const weight = mx.zeros([3, 2]);
    const bias = mx.zeros([3]);
    expect(() => linear.loadWeights([["weight", weight]])).toThrow(/lack 1 parameter: bias/);
    expect(() =>
      linear.loadWeights([
        ["weight", weight],
        ["bias", bias],
        ["q_norm", bias],
      ]),
    ).toThrow(/has no 1 parameter: q_norm/);
    expect(() =>
      linear.loadWeights([
        ["weight", mx.zeros([2, 3])],
        ["bias", bias],
      ]),
    ).toThrow(/weight must have shape \(3,2\), got \(2,3\)/);
    expect(() =>
      linear.loadWeights([
        ["weight", 1],
        ["bias", bias],
      ]),
    ).toThrow(/weight must be an array/);
    linear.loadWeights(
      [
        ["weight", weight],
        ["unknown", bias],
      ],
      false,
    );
    expect(linear.weight).toBe(weight);
  });
  test("saveWeights and loadWeights with .npz", () => {
    const file = join(temporaryFolder(), "weights.npz");
    const block = new Block();
    block.saveWeights(file);
    expect(values(new Block().loadWeights(file).qProj.weight)).toEqual(values(block.qProj.weight));
  });
  test("update is strict about names and types unless told otherwise, and keeps what is not named", () => {
    const block = new Block();
    const before = block.qProj.weight;
    const scale = mx.zeros([2]);
    const tree = { scale, other: scale, layers: [{}, { weight: mx.zeros([4]) }] };
    expect(() => block.update(tree)).toThrow(/has no other/);
    expect(() => block.update({ layers: ["hello"] })).toThrow(/\[Module.update\] 0 can not be replaced, got string/);
    expect(() => block.update({ scale: 1 })).toThrow(/scale can not be replaced, got number/);
    expect(() => block.update({ layers: [{}, {}, {}] })).toThrow(/has no 2/);
    block.update(block.parameters());
    block.update(tree, false);
    expect(block.scale).toBe(scale);
    expect("other" in block).toBe(false);
    expect(block.qProj.weight).toBe(before);
    expect(values(block.layers[1]?.weight as mx.MxArray)).toEqual([0, 0, 0, 0]);
  });
  test("updateModules is strict unless told otherwise", () => {
    const block = new Block();
    const linear = new nn.Linear(8, 8, false);
    expect(() => block.updateModules({ values: [0, 1] })).toThrow(/has no values/);
    expect(() => block.updateModules({ layers: [0, 1] })).toThrow(/0 can not be replaced, got number/);
    expect(() => block.updateModules({ layers: [{}, {}, linear] })).toThrow(/has no 2/);
    block.updateModules({ layers: [{}, {}, linear], qProj: linear, args: { size: {} } }, false);
    expect([block.qProj, block.layers.length]).toEqual([linear, 2]);
  });
  test("freeze and unfreeze", () => {
    const block = new Block();
    block.freeze();
    expect(paths(block.trainableParameters())).toEqual([]);
    block.unfreeze(true, "bias");
    expect(paths(block.trainableParameters())).toEqual(["layers.0.bias"]);
    block.unfreeze();
    expect(paths(block.trainableParameters())).toEqual(paths(block.parameters()));
    block.freeze(false, "scale");
    expect(paths(block.trainableParameters())).not.toContain("scale");
    expect(() => block.freeze(false, "nothingLikeIt", true)).toThrow(/no member nothingLikeIt/);
    expect(() => block.freeze(false, "bias", true)).toThrow(/no member bias/);
    block.freeze(true, "bias", true);
    expect(paths(block.trainableParameters())).not.toContain("layers.0.bias");
    expect(() => block.unfreeze(true, ["bias", "nothingLikeIt"], true)).toThrow(/no member nothingLikeIt/);
  });
  test("train and eval reach all modules", () => {
    const block = new Block();
    expect(block.training).toBe(true);
    block.eval();
    expect(block.modules().some((m) => m.training)).toBe(false);
  });
  test("setDtype casts floating parameters only", () => {
    const layer = nn.QuantizedLinear.fromLinear(new nn.Linear(64, 8), 32, 4);
    layer.setDtype(mx.bfloat16);
    expect([layer.weight.dtype, layer.scales.dtype, layer.bias?.dtype]).toEqual([mx.uint32, mx.bfloat16, mx.bfloat16]);
  });
  test("toString shows the tree", () => {
    expect(String(new nn.Linear(2, 3))).toBe("Linear(inputDims=2, outputDims=3, bias=true)");
    expect(String(new Block()).split("\n")).toEqual([
      "Block(",
      "  (qProj): Linear(inputDims=8, outputDims=8, bias=false)",
      "  (layers.0): Linear(inputDims=8, outputDims=4, bias=true)",
      "  (layers.1): RMSNorm(4, eps=1e-5)",
      "  (named.first): Embedding(3, 4)",
      ")",
    ]);
  });
});

describe("layers", () => {
  test("Linear with and without bias", () => {
    const x = randomArray(3, 4);
    for (const bias of [true, false]) {
      const layer = new nn.Linear(4, 5, bias);
      const expected = affine(x.tolist() as number[][], layer.weight.tolist() as number[][], layer.bias && values(layer.bias));
      expect(values(layer.forward(x))).toEqual(near(expected));
    }
  });
  test("Linear starts within 1/sqrt(inputDims)", () => {
    const w = values(new nn.Linear(16, 64).weight);
    expect(Math.max(...w.map(Math.abs))).toBeLessThanOrEqual(0.25);
    expect(Math.max(...w.map(Math.abs))).toBeGreaterThan(0.2);
  });
  test("Embedding, and the same table as an output layer", () => {
    const layer = new nn.Embedding(6, 4);
    const rows = layer.weight.tolist() as number[][];
    expect(
      layer
        .forward(
          mx.array(
            [
              [1, 5],
              [0, 1],
            ],
            mx.int32,
          ),
        )
        .tolist(),
    ).toEqual([
      [rows[1], rows[5]],
      [rows[0], rows[1]],
    ]);
    const x = randomArray(2, 4);
    expect(values(layer.asLinear(x))).toEqual(near(affine(x.tolist() as number[][], rows)));
  });
  test("RMSNorm and LayerNorm", () => {
    const x = randomArray(3, 8);
    const rows = x.tolist() as number[][];
    const rms = new nn.RMSNorm(8, 1e-5);
    rms.weight = randomArray(8);
    const w = values(rms.weight);
    expect(values(rms.forward(x))).toEqual(near(rows.flatMap((r) => r.map((v, i) => (v * (w[i] as number)) / Math.sqrt(r.reduce((s, y) => s + y * y, 0) / 8 + 1e-5)))));
    const layer = new nn.LayerNorm(8);
    const normalized = rows.flatMap((r) => {
      const mean = r.reduce((a, b) => a + b, 0) / 8;
      const variance = r.reduce((s, y) => s + (y - mean) ** 2, 0) / 8;
      return r.map((v) => (v - mean) / Math.sqrt(variance + 1e-5));
    });
    expect(values(layer.forward(x))).toEqual(near(normalized, 4));
    expect(values(new nn.LayerNorm(8, 1e-5, false).forward(x))).toEqual(near(normalized, 4));
  });
  test("RoPE rotates pairs by position times frequency", () => {
    const x = randomArray(1, 1, 3, 8);
    const rows = (x.tolist() as number[][][][])[0]?.[0] as number[][];
    const expected = rows.flatMap((r, t) => {
      const out = [...r];
      for (let i = 0; i < 4; i++) {
        const angle = (t + 5) * 0.5 * 10000 ** (-i / 4);
        const [a, b] = [r[i] as number, r[i + 4] as number];
        out[i] = a * Math.cos(angle) - b * Math.sin(angle);
        out[i + 4] = a * Math.sin(angle) + b * Math.cos(angle);
      }
      return out;
    });
    expect(values(new nn.RoPE(8, false, 10000, 0.5).forward(x, 5))).toEqual(near(expected, 4));
  });
  test("activations", () => {
    const x = mx.array([-3, -1, -0.1, 0, 0.5, 2]);
    const xs = values(x);
    const sigmoid = (v: number): number => 1 / (1 + Math.exp(-v));
    const cases: [(a: mx.MxArray) => mx.MxArray, (v: number) => number][] = [
      [nn.silu, (v) => v * sigmoid(v)],
      [nn.relu, (v) => Math.max(v, 0)],
      [nn.leakyRelu, (v) => (v < 0 ? 0.01 * v : v)],
      [nn.relu6, (v) => Math.min(Math.max(v, 0), 6)],
      [nn.geluApprox, (v) => 0.5 * v * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (v + 0.044715 * v ** 3)))],
      [nn.geluFastApprox, (v) => v * sigmoid(1.702 * v)],
      [(a) => new nn.SiLU().forward(a), (v) => v * sigmoid(v)],
      [(a) => new nn.GELU("fast").forward(a), (v) => v * sigmoid(1.702 * v)],
    ];
    for (const [f, reference] of cases) expect(values(f(x))).toEqual(near(xs.map(reference)));
    expect(values(nn.gelu(mx.array([1])))).toEqual(near([0.841344746]));
    expect(values(nn.glu(mx.array([1, 2, 0, 3])))).toEqual(near([0.5, 2 * sigmoid(3)]));
    expect(values(nn.logSoftmax(mx.array([0, Math.log(3)])))).toEqual(near([Math.log(0.25), Math.log(0.75)]));
    expect(() => new nn.GELU("best" as "none")).toThrow(/approx must be one of/);
  });
  test("step counts its threshold in; relu2", () => {
    const x = mx.array([-1, 0, 1, 3]);
    expect(nn.step(x).tolist()).toEqual([0, 1, 1, 1]);
    expect(new nn.Step(1).forward(x).tolist()).toEqual([0, 0, 1, 1]);
    expect(new nn.ReLU2().forward(x).tolist()).toEqual([0, 0, 1, 9]);
    expect(nn.Softshrink).toBe(nn.SoftShrink);
  });
  test("logSoftmax keeps the digits of large inputs", () => {
    // In float32 the logarithm of the sum alone would be rounded to a multiple of 2^-10.
    const x = mx.array([10000, 10000.5]);
    expect(values(nn.logSoftmax(x))).toEqual(near([-Math.log(1 + Math.exp(0.5)), -Math.log(1 + Math.exp(-0.5))]));
  });
  test("Sequential and Dropout", () => {
    const layer = new nn.Sequential(new nn.Dropout(0.5), nn.relu, new nn.Identity());
    const x = mx.ones([1000]);
    mx.random.seed(1);
    const trained = values(layer.forward(x));
    expect(new Set(trained)).toEqual(new Set([0, 2]));
    expect(trained.filter((v) => v === 0).length).toBeGreaterThan(400);
    layer.eval();
    expect(values(layer.forward(x)).every((v) => v === 1)).toBe(true);
    expect(() => new nn.Dropout(1)).toThrow(/\[Dropout\] p must be in \[0, 1\)/);
  });
});

describe("quantized layers", () => {
  test("QuantizedLinear computes with the dequantized weights", () => {
    const x = randomArray(3, 64);
    const linear = new nn.Linear(64, 8);
    for (const [groupSize, bits] of [
      [64, 4],
      [32, 8],
    ] as const) {
      const layer = linear.toQuantized(groupSize, bits);
      const w = mx.dequantize(layer.weight, layer.scales, layer.biases, groupSize, bits).tolist() as number[][];
      expect(values(layer.forward(x))).toEqual(near(affine(x.tolist() as number[][], w, values(linear.bias as mx.MxArray)), 4));
      expect(values(linear.forward(x))).toEqual(near(values(layer.forward(x)), 0));
    }
  });
  test("QuantizedEmbedding looks up dequantized rows and is an output layer too", () => {
    const layer = new nn.Embedding(6, 64).toQuantized(32, 4);
    const rows = mx.dequantize(layer.weight, layer.scales, layer.biases, 32, 4).tolist() as number[][];
    expect(layer.forward(mx.array([2, 0], mx.int32)).tolist()).toEqual([rows[2], rows[0]]);
    const x = randomArray(2, 64);
    expect(values(layer.asLinear(x))).toEqual(near(affine(x.tolist() as number[][], rows), 4));
  });
  test.each([
    ["mxfp4", 32, 4],
    ["mxfp8", 32, 8],
    ["nvfp4", 16, 4],
  ] as const)("layers in the mode %s", (mode, groupSize, bits) => {
    const model = new nn.Sequential(new nn.Embedding(5, 64), new nn.Linear(64, 64));
    nn.quantize(model, null, null, null, mode);
    const [embedding, linear] = model.layers as unknown as [nn.QuantizedEmbedding, nn.QuantizedLinear];
    expect([linear.groupSize, linear.bits, linear.biases, embedding.groupSize, embedding.bits]).toEqual([groupSize, bits, undefined, groupSize, bits]);
    const x = randomArray(3, 64);
    const w = mx.dequantize(linear.weight, linear.scales, null, groupSize, bits, mode).tolist() as number[][];
    // Inputs may be rounded to 21 bits by the kernel: 3e-7 of 64 products below 0.125.
    expect(values(linear.forward(x))).toEqual(near(affine(x.tolist() as number[][], w, values(linear.bias as mx.MxArray)), 4));
    const rows = mx.dequantize(embedding.weight, embedding.scales, null, groupSize, bits, mode).tolist() as number[][];
    expect(embedding.forward(mx.array([3, 1], mx.int32)).tolist()).toEqual([rows[3], rows[1]]);
    expect(values(embedding.asLinear(x))).toEqual(near(affine(x.tolist() as number[][], rows), 3));
  });
  test.each([
    ["nvfp4", 16, 4],
    ["mxfp8", 32, 8],
  ] as const)("QQLinear rounds both operands, mode %s", (mode, groupSize, bits) => {
    const linear = new nn.Linear(64, 8, false);
    const model = new nn.Sequential(linear);
    nn.quantize(model, null, null, null, mode, true);
    const layer = model.layers[0] as nn.QQLinear;
    expect(String(layer)).toBe(`QQLinear(inputDims=64, outputDims=8, groupSize=${groupSize}, bits=${bits}, mode=${mode})`);
    const rounded = (a: mx.MxArray): number[][] => mx.dequantize(...(mx.quantize(a, groupSize, bits, mode) as [mx.MxArray, mx.MxArray]), null, groupSize, bits, mode, null, mx.float32).tolist() as number[][];
    const x = randomArray(3, 64);
    const want = near(affine(rounded(x), rounded(linear.weight)), 3);
    expect(values(layer.forward(x))).toEqual(want);
    expect(layer.weight).toBe(linear.weight);
    model.eval();
    expect([layer.weight.dtype, layer.scales?.dtype]).toEqual([mx.uint32, mx.uint8]);
    expect(values(layer.forward(x))).toEqual(want);
    expect(String(layer)).toContain("inputDims=64, outputDims=8");
    model.train();
    expect(layer.scales).toBeUndefined();
    expect(values(layer.weight)).toEqual(rounded(linear.weight).flat());
    expect(() => nn.quantize(new nn.Sequential(new nn.Embedding(4, 64)), null, null, null, mode, true)).toThrow(/an embedding has no input/);
    expect(() => nn.quantize(new nn.Sequential(new nn.Linear(64, 4)), null, null, null, mode, true)).toThrow(/\[QQLinear\] there is no bias/);
    expect(() => new nn.QQLinear(64, 4, null, null, "mxfp4")).toThrow(/mode must be "nvfp4" or "mxfp8"/);
  });
  test("nn.quantize replaces layers by path, with sizes of their own", () => {
    class Model extends nn.Module {
      embedTokens = new nn.Embedding(4, 64);
      layers = [{ upProj: new nn.Linear(64, 32), norm: new nn.RMSNorm(32) }];
      override forward(x: mx.MxArray): mx.MxArray {
        return x;
      }
    }
    const model = new Model();
    const seen: string[] = [];
    nn.quantize(model, 64, 4, (path, m) => {
      seen.push(path);
      return path === "layers.0.up_proj" ? [32, 8] : m instanceof nn.Embedding;
    });
    expect(seen).toEqual(["embed_tokens", "layers.0.up_proj", "layers.0.norm"]);
    expect(model.embedTokens).toBeInstanceOf(nn.QuantizedEmbedding);
    const up = model.layers[0]?.upProj as unknown as nn.QuantizedLinear;
    expect([up.constructor.name, up.groupSize, up.bits]).toEqual(["QuantizedLinear", 32, 8]);
    expect(() => nn.quantize(new Model(), 64, 4, () => true)).toThrow(/RMSNorm has no toQuantized/);
    const other = new Model();
    nn.quantize(other, undefined, undefined, (path) => (path === "embed_tokens" ? { bits: 2 } : path === "layers.0.up_proj"));
    expect(String(other.embedTokens)).toBe("QuantizedEmbedding(4, 64, groupSize=64, bits=2, mode=affine)");
    expect(String(other.layers[0]?.upProj)).toBe("QuantizedLinear(inputDims=64, outputDims=32, bias=true, groupSize=64, bits=4, mode=affine)");
  });
  test("parameters of quantized layers stay frozen unless they are named", () => {
    const layer = new nn.Linear(64, 8).toQuantized();
    layer.unfreeze();
    expect(paths(layer.trainableParameters())).toEqual([]);
    layer.unfreeze(true, ["scales"]);
    expect(paths(layer.trainableParameters())).toEqual(["scales"]);
  });
});

describe("trees", () => {
  test("flatten and unflatten are inverse, and lists come back as lists", () => {
    const tree = { layers: [{ weight: 1 }, { weight: 2, bias: 3 }], norm: { weight: 4 } };
    const flat = utils.treeFlatten(tree);
    expect(flat).toEqual([
      ["layers.0.weight", 1],
      ["layers.1.weight", 2],
      ["layers.1.bias", 3],
      ["norm.weight", 4],
    ]);
    expect(utils.treeUnflatten(flat)).toEqual(tree);
    expect(utils.treeUnflatten([["a.2", 1]])).toEqual({ a: [{}, {}, 1] });
    expect(utils.treeUnflatten([["a_b.c_d", 1]], utils.toCamelCase)).toEqual({ aB: { cD: 1 } });
  });
  test("map, mapWithPath, reduce, merge", () => {
    const tree = { a: [1, 2], b: { c: 3 } };
    expect(utils.treeMap((x: number, y: number) => x + y, tree, [{ a: [10, 20], b: { c: 30 } }])).toEqual({ a: [11, 22], b: { c: 33 } });
    expect(utils.treeMapWithPath((path) => path, tree)).toEqual({ a: ["a.0", "a.1"], b: { c: "b.c" } });
    expect(utils.treeReduce((sum: number, x: number) => sum + x, tree, 0)).toBe(6);
    expect(utils.treeMerge({ a: [1] }, { a: [undefined, 2], b: 3 })).toEqual({ a: [1, 2], b: 3 });
    expect(utils.treeMerge({ a: 1 }, { a: 2 }, (x: number, y: number) => x + y)).toEqual({ a: 3 });
    expect(() => utils.treeMerge({ a: 1 }, { a: 2 })).toThrow(/mergeFn/);
  });
  test("flatten into an object; names that would be the same place of a list", () => {
    const target = { before: 0 };
    expect(utils.treeFlatten({ a: [1, {}], b: [] }, "", undefined, undefined, target)).toBe(target);
    expect(target).toEqual({ before: 0, "a.0": 1 });
    expect(utils.treeUnflatten([["01", "a"], ["1", "b"], ["2", "c"]])).toEqual({ "01": "a", "1": "b", "2": "c" });
    expect(utils.treeUnflatten([["1", "b"], ["0", "a"]])).toEqual(["a", "b"]);
  });
  test("merge of empty trees", () => {
    const never = (): never => {
      throw new Error("called");
    };
    expect(utils.treeMerge({}, {})).toEqual({});
    expect(utils.treeMerge([{ a: 1 }, {}], [{ b: 2 }, {}])).toEqual([{ a: 1, b: 2 }, {}]);
    expect(utils.treeMerge({ a: 1, b: {}, c: {} }, { a: {}, b: {}, c: 2 }, never)).toEqual({ a: 1, b: {}, c: 2 });
    expect(utils.treeMerge({ a: [] }, { a: [] }, never)).toEqual({ a: [] });
    expect(utils.treeMerge([null, 1], [2])).toEqual([2, 1]);
    expect(() => utils.treeMerge({}, [])).toThrow(/a list and a dictionary can not be merged/);
  });
  test("names", () => {
    const pairs = [
      ["model.layers.0.self_attn.q_proj.weight", "model.layers.0.selfAttn.qProj.weight"],
      ["layer_norm_1", "layerNorm_1"],
      ["a_b_c", "aBC"],
    ];
    for (const [snake, camel] of pairs) expect(utils.toCamelCase(snake as string)).toBe(camel);
    for (const [snake, camel] of pairs) expect(utils.toSnakeCase(camel as string)).toBe(snake);
    expect(utils.toCamelCase("encoder.SelfAttention.DenseReluDense.wi_0")).toBe("encoder.SelfAttention.DenseReluDense.wi_0");
    expect(utils.toSnakeCase("encoder.SelfAttention.q")).toBe("encoder.SelfAttention.q");
    expect(utils.isDict({}) && utils.isDict(new Block()) && !utils.isDict([]) && !utils.isDict(mx.zeros([1])) && !utils.isDict(new Date())).toBe(true);
  });
});
