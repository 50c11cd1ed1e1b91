/** Recurrent layers, attention and the transformer, against plain loops. */
import { describe, expect, test } from "vitest";
import { core as mx, nn, utils } from "../src/index.ts";
import { randomFrom, values } from "./helpers/llm.ts";

type A = mx.MxArray;
type Matrix = number[][];
const random = randomFrom(23);
const matrix = (rows: number, columns: number): Matrix => Array.from({ length: rows }, () => Array.from({ length: columns }, () => Math.fround(random() * 2 - 1)));
const near = (list: readonly number[], digits = 5): unknown[] => list.map((x) => expect.closeTo(x, digits));
const rows = (a: A): Matrix => a.tolist() as Matrix;
const vector = (a: A | undefined, length: number): number[] => (a ? values(a) : new Array<number>(length).fill(0));
const sigmoid = (x: number): number => 1 / (1 + Math.exp(-x));
/** W x + b. */
const affine = (w: Matrix, x: readonly number[], b?: readonly number[]): number[] => w.map((row, i) => row.reduce((s, v, k) => s + v * (x[k] as number), b?.[i] ?? 0));

describe("recurrent layers", () => {
  const [L, D, H] = [4, 3, 2];
  const sequences = [matrix(L, D), matrix(L, D)];
  const states = matrix(2, H);
  /** Runs a step over both sequences, by itself and by the layer, batched and alone, from zero and from given states. */
  function check(layer: nn.RNN | nn.GRU, step: (x: number[], h: number[]) => number[]): void {
    for (const start of [undefined, states]) {
      const want = sequences.map((sequence, n) => {
        let h = start?.[n] ?? new Array<number>(H).fill(0);
        return sequence.map((x) => {
          h = step(x, h);
          return h;
        });
      });
      const y = layer.forward(mx.array(sequences), start && mx.array(start));
      expect(y.shape).toEqual([2, L, H]);
      expect(values(y)).toEqual(near(want.flat(2)));
      expect(values(layer.forward(mx.array(sequences[1] as Matrix), start && mx.array(start[1] as number[])))).toEqual(near((want[1] as Matrix).flat()));
    }
  }
  test.each([[true], [false]])("RNN, bias %s", (bias) => {
    const layer = new nn.RNN(D, H, bias);
    const [wx, wh, b] = [rows(layer.Wxh), rows(layer.Whh), vector(layer.bias, H)];
    check(layer, (x, h) => affine(wx, x, affine(wh, h, b)).map(Math.tanh));
  });
  test("RNN with another nonlinearity", () => {
    const layer = new nn.RNN(D, H, true, nn.relu);
    const [wx, wh, b] = [rows(layer.Wxh), rows(layer.Whh), vector(layer.bias, H)];
    check(layer, (x, h) => affine(wx, x, affine(wh, h, b)).map((v) => Math.max(v, 0)));
    expect(String(layer)).toBe("RNN(inputDims=3, hiddenDims=2, nonlinearity=relu, bias=true)");
    expect(() => new nn.RNN(D, H, true, "tanh" as never)).toThrow(/nonlinearity must be a function, got tanh/);
  });
  test.each([[true], [false]])("GRU, bias %s", (bias) => {
    const layer = new nn.GRU(D, H, bias);
    const [wx, wh, b, bhn] = [rows(layer.Wx), rows(layer.Wh), vector(layer.b, 3 * H), vector(layer.bhn, H)];
    check(layer, (x, h) => {
      const [input, hidden] = [affine(wx, x, b), affine(wh, h)];
      return h.map((old, i) => {
        const at = (list: number[], gate: number): number => list[gate * H + i] as number;
        const r = sigmoid(at(input, 0) + at(hidden, 0));
        const z = sigmoid(at(input, 1) + at(hidden, 1));
        const n = Math.tanh(at(input, 2) + r * (at(hidden, 2) + (bhn[i] as number)));
        return (1 - z) * n + z * old;
      });
    });
    expect(String(layer)).toBe(`GRU(inputDims=3, hiddenDims=2, bias=${bias})`);
  });
  test.each([[true], [false]])("LSTM, bias %s", (bias) => {
    const layer = new nn.LSTM(D, H, bias);
    const [wx, wh, b] = [rows(layer.Wx), rows(layer.Wh), vector(layer.bias, 4 * H)];
    for (const given of [false, true]) {
      const zero = (): number[] => new Array<number>(H).fill(0);
      const [hiddens, cells] = [[], []] as [number[], number[]];
      sequences.forEach((sequence, s) => {
        let h = given ? (states[s] as number[]) : zero();
        let c = given ? (states[1 - s] as number[]) : zero();
        for (const x of sequence) {
          const gates = affine(wx, x, affine(wh, h, b));
          c = c.map((old, i) => sigmoid(gates[H + i] as number) * old + sigmoid(gates[i] as number) * Math.tanh(gates[2 * H + i] as number));
          h = c.map((v, i) => sigmoid(gates[3 * H + i] as number) * Math.tanh(v));
          hiddens.push(...h);
          cells.push(...c);
        }
      });
      const [h, c] = given ? layer.forward(mx.array(sequences), mx.array(states), mx.array([...states].reverse())) : layer.forward(mx.array(sequences));
      expect([h.shape, c.shape]).toEqual([[2, L, H], [2, L, H]]);
      expect(values(h)).toEqual(near(hiddens));
      expect(values(c)).toEqual(near(cells));
    }
    expect(layer.forward(mx.array(sequences[0] as Matrix)).map((a) => a.shape)).toEqual([[L, H], [L, H]]);
  });
  test("weights start within 1 / sqrt(hiddenDims); gradients reach all of them; errors", () => {
    const layer = new nn.LSTM(2, 16);
    expect(Math.max(...values(layer.Wh).map(Math.abs))).toBeLessThanOrEqual(0.25);
    const [, grads] = nn.valueAndGrad(layer, (x: A) => mx.sum(mx.square(layer.forward(x)[0])))(mx.array(matrix(3, 2)));
    expect(utils.treeFlatten(grads).map(([path, g]) => [path, values(g).some((v) => v !== 0)]).sort()).toEqual([["Wh", true], ["Wx", true], ["bias", true]]);
    expect(() => new nn.GRU(2, 3).forward(mx.zeros([2]))).toThrow(/\[GRU\] input must be/);
    expect(() => new nn.RNN(2, 3).forward(mx.zeros([0, 2]))).toThrow(/at least one position/);
  });
});

/** softmax(q k^T scale + mask) v of one head. */
function attend(q: Matrix, k: Matrix, v: Matrix, mask: (i: number, j: number) => number): Matrix {
  return q.map((row, i) => {
    const scores = k.map((key, j) => row.reduce((s, x, d) => s + x * (key[d] as number), 0) / Math.sqrt(row.length) + mask(i, j));
    const weights = scores.map((s) => Math.exp(s - Math.max(...scores)));
    const total = weights.reduce((a, b) => a + b, 0);
    return (v[0] as number[]).map((_, d) => weights.reduce((s, w, j) => s + (w / total) * ((v[j] as number[])[d] as number), 0));
  });
}
function multiHead(layer: nn.MultiHeadAttention, q: Matrix, k: Matrix, v: Matrix, mask: (i: number, j: number) => number = () => 0): Matrix {
  const project = (linear: nn.Linear, x: Matrix): Matrix => x.map((row) => affine(rows(linear.weight), row, linear.bias && values(linear.bias)));
  const part = (x: Matrix, h: number): Matrix => x.map((row) => row.slice((h * row.length) / layer.numHeads, ((h + 1) * row.length) / layer.numHeads));
  const [Q, K, V] = [project(layer.queryProj, q), project(layer.keyProj, k), project(layer.valueProj, v)];
  const heads = Array.from({ length: layer.numHeads }, (_, h) => attend(part(Q, h), part(K, h), part(V, h), mask));
  return project(layer.outProj, q.map((_, i) => heads.flatMap((head) => head[i] as number[])));
}
const causal = (i: number, j: number): number => (j > i ? -1e9 : 0);

describe("attention", () => {
  test("with sizes of their own for queries, keys, values and the output, and biases", () => {
    const layer = new nn.MultiHeadAttention(8, 2, 3, 5, 6, 4, 7, true);
    const [q, k, v] = [matrix(4, 3), matrix(5, 5), matrix(5, 6)];
    const y = layer.forward(mx.array([q]), mx.array([k]), mx.array([v]));
    expect(y.shape).toEqual([1, 4, 7]);
    expect(values(y)).toEqual(near(multiHead(layer, q, k, v).flat()));
  });
  test("additive, causal and boolean masks", () => {
    const layer = new nn.MultiHeadAttention(8, 2);
    expect(layer.queryProj.bias).toBeUndefined();
    const x = matrix(4, 8);
    const a = mx.array([x]);
    const want = near(multiHead(layer, x, x, x, causal).flat());
    expect(values(layer.forward(a, a, a, nn.MultiHeadAttention.createAdditiveCausalMask(4)))).toEqual(want);
    expect(values(layer.forward(a, a, a, "causal"))).toEqual(want);
    expect(values(layer.forward(a, a, a, mx.tri(4, 4, 0, mx.bool_)))).toEqual(want);
    expect(() => new nn.MultiHeadAttention(8, 3)).toThrow(/divisible by numHeads, got 8 and 3/);
  });
  test.each([["float16"], ["bfloat16"], ["float32"]] as const)("the causal mask of %s is finite", (name) => {
    const mask = nn.MultiHeadAttention.createAdditiveCausalMask(3, mx[name]);
    expect(mask.dtype).toBe(mx[name]);
    const least = mx.finfo(mx[name]).min;
    // MLX's mask is false times the least number, which is -0.
    expect(values(mask).map((v) => v + 0)).toEqual([0, least, least, 0, 0, least, 0, 0, 0]);
  });
});

describe("transformer", () => {
  const norm = (x: Matrix): Matrix => x.map((row) => {
    const mean = row.reduce((a, b) => a + b, 0) / row.length;
    const variance = row.reduce((s, v) => s + (v - mean) ** 2, 0) / row.length;
    return row.map((v) => (v - mean) / Math.sqrt(variance + 1e-5));
  });
  const plus = (a: Matrix, b: Matrix): Matrix => a.map((row, i) => row.map((v, j) => v + ((b[i] as number[])[j] as number)));
  type Layer = nn.TransformerEncoderLayer | nn.TransformerDecoderLayer;
  const perceptron = (layer: Layer, x: Matrix, f: (v: number) => number): Matrix =>
    x.map((row) => affine(rows(layer.linear2.weight), affine(rows(layer.linear1.weight), row, values(layer.linear1.bias as A)).map(f), values(layer.linear2.bias as A)));
  const relu = (v: number): number => Math.max(v, 0);
  function encoderLayer(layer: nn.TransformerEncoderLayer, x: Matrix, f = relu): Matrix {
    const self = (y: Matrix): Matrix => multiHead(layer.attention, y, y, y, causal);
    if (layer.normFirst) {
      const y = plus(x, self(norm(x)));
      return plus(y, perceptron(layer, norm(y), f));
    }
    const y = norm(plus(x, self(x)));
    return norm(plus(y, perceptron(layer, y, f)));
  }
  function decoderLayer(layer: nn.TransformerDecoderLayer, x: Matrix, memory: Matrix): Matrix {
    const self = (y: Matrix): Matrix => multiHead(layer.selfAttention, y, y, y, causal);
    const cross = (y: Matrix): Matrix => multiHead(layer.crossAttention, y, memory, memory);
    if (layer.normFirst) {
      const y = plus(x, self(norm(x)));
      const z = plus(y, cross(norm(y)));
      return plus(z, perceptron(layer, norm(z), relu));
    }
    const y = norm(plus(x, self(x)));
    const z = norm(plus(y, cross(y)));
    return norm(plus(z, perceptron(layer, z, relu)));
  }
  const mask = (n: number): A => nn.MultiHeadAttention.createAdditiveCausalMask(n);

  test.each([[true], [false]])("encoder, normFirst %s", (normFirst) => {
    const encoder = new nn.TransformerEncoder(2, 4, 2, 6, 0, nn.tanh, normFirst);
    const x = matrix(5, 4);
    const want = norm(encoder.layers.reduce((y, layer) => encoderLayer(layer, y, Math.tanh), x));
    expect(values(encoder.forward(mx.array([x]), mask(5)))).toEqual(near(want.flat(), 4));
    expect(encoder.layers[0]?.mlpDims).toBe(6);
  });
  test.each([[true], [false]])("encoder and decoder, normFirst %s", (normFirst) => {
    const model = new nn.Transformer(4, 2, 1, 2, null, 0, nn.relu, null, null, normFirst);
    const { encoder, decoder } = model as unknown as { encoder: nn.TransformerEncoder; decoder: nn.TransformerDecoder };
    const [src, tgt] = [matrix(3, 4), matrix(5, 4)];
    const memory = norm(encoder.layers.reduce((y, layer) => encoderLayer(layer, y), src));
    const want = norm(decoder.layers.reduce((y, layer) => decoderLayer(layer, y, memory), tgt));
    const y = model.forward(mx.array([src]), mx.array([tgt]), mask(3), mask(5));
    expect(values(y)).toEqual(near(want.flat(), 4));
    expect(decoder.layers[0]?.mlpDims).toBe(16);
  });
  test("checkpoint changes neither values nor gradients; custom parts; names of parameters", () => {
    class Plain extends nn.Module {
      override forward(x: A): A {
        return x;
      }
    }
    const run = (model: nn.Transformer): number[] => {
      const [value, grads] = nn.valueAndGrad(model, (x: A) => mx.sum(mx.square(model.forward(x, x) as A)))(mx.array([xs]));
      return [value.item() as number, ...utils.treeFlatten(grads).flatMap(([, g]) => values(g))];
    };
    const xs = matrix(3, 4);
    const [plain, again] = [false, true].map((checkpoint) => new nn.Transformer(4, 2, 1, 1, 4, 0, nn.relu, null, null, true, checkpoint)) as [nn.Transformer, nn.Transformer];
    again.update(plain.parameters());
    const want = run(plain);
    expect(want.slice(1).some((v) => Math.abs(v) > 1e-3)).toBe(true);
    expect(run(again)).toEqual(near(want, 4));
    const memory = mx.array([matrix(2, 4)]);
    const custom = new nn.Transformer(4, 2, 1, 1, 4, 0, nn.relu, new Plain(), new Plain());
    expect(custom.forward(memory, memory)).toBe(memory);
    const names = utils.treeFlatten(plain.parameters(), "", undefined, utils.toSnakeCase).map(([path]) => path);
    for (const name of ["encoder.layers.0.attention.query_proj.weight", "encoder.layers.0.ln1.weight", "decoder.layers.0.cross_attention.out_proj.weight", "decoder.layers.0.linear2.bias", "decoder.ln.bias"]) expect(names).toContain(name);
  });
});

test("mx.grad differentiates by a module: by all parameters, which the module holds again afterwards", () => {
  const model = new nn.Sequential(new nn.Linear(3, 2), nn.relu, new nn.Linear(2, 2));
  model.freeze();
  const before = utils.treeFlatten(model.parameters()).map(([, p]) => p);
  const x = mx.array([[1, 2, 3]]);
  const [value, grads] = mx.valueAndGrad((m: nn.Sequential, y: A) => mx.sum(m.forward(y)))(model, x);
  expect(value.item()).toBeCloseTo(values(model.forward(x)).reduce((a, b) => a + b, 0), 5);
  const second = grads.layers[2];
  expect(values(second.bias)).toEqual([1, 1]);
  const hidden = values(nn.relu((model.layers[0] as nn.Linear).forward(x)));
  expect(values(second.weight)).toEqual(near([...hidden, ...hidden]));
  expect(utils.treeFlatten(model.parameters()).every(([, p], i) => p === before[i])).toBe(true);
  expect(() => mx.grad(() => {
    throw new Error("mine");
  })(model)).toThrow("mine");
  expect(utils.treeFlatten(model.parameters()).every(([, p], i) => p === before[i])).toBe(true);
  expect(() => mx.grad((d: Date) => mx.array(d.getTime()))(new Date())).toThrow(/argument 0 must be an array or a tree of arrays, got Date/);
});
