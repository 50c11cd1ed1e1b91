/** Dense products and einsum through the library, against float64. */
import { describe, expect, it } from "vitest";
import type { MxArray } from "../src/core/array.ts";
import { core as mx } from "../src/index.ts";
import { checkSamples, expectClose } from "./helpers/check.ts";
import { samples } from "./samples/matmul.ts";

for (const [name, list] of Object.entries(samples)) describe(name, () => checkSamples(mx[name as keyof typeof samples] as never, list));

/** Plain sum over all values of all labels. */
function einsumByLoops(inputs: readonly string[], output: string, operands: readonly { shape: number[]; data: number[] }[]): number[] {
  const sizes = new Map<string, number>();
  for (const [i, term] of inputs.entries()) for (const [d, c] of [...term].entries()) sizes.set(c, Math.max(sizes.get(c) ?? 1, operands[i]?.shape[d] as number));
  const labels = [...sizes.keys()];
  const out = new Array<number>([...output].reduce((n, c) => n * (sizes.get(c) as number), 1)).fill(0);
  const total = labels.reduce((n, c) => n * (sizes.get(c) as number), 1);
  for (let i = 0; i < total; i++) {
    const value = new Map<string, number>();
    let left = i;
    for (const c of labels) {
      value.set(c, left % (sizes.get(c) as number));
      left = Math.floor(left / (sizes.get(c) as number));
    }
    const term = inputs.map((t, k) => {
      const { shape, data } = operands[k] as { shape: number[]; data: number[] };
      const at = [...t].reduce((n, c, d) => n * (shape[d] as number) + ((value.get(c) as number) % (shape[d] as number)), 0);
      return data[at] as number;
    });
    const at = [...output].reduce((n, c) => n * (sizes.get(c) as number) + (value.get(c) as number), 0);
    out[at] = (out[at] as number) + term.reduce((p, q) => p * q, 1);
  }
  return out;
}

let seed = 5;
const random = (): number => {
  seed = (Math.imul(seed, 1103515245) + 12345) >>> 0;
  return seed / 2 ** 31 - 1;
};
function operand(shape: number[]): { shape: number[]; data: number[]; array: MxArray } {
  const data = Array.from({ length: shape.reduce((p, q) => p * q, 1) }, () => Math.fround(random()));
  return { shape, data, array: mx.reshape(mx.array(new Float32Array(data)), shape) };
}
const flat = (a: MxArray): number[] => mx.flatten(a).tolist() as number[];

describe("einsum", () => {
  // Subscripts as called, the same written out for the loops (no ellipsis, explicit output), shapes.
  const cases: [string, string, ...number[][]][] = [
    ["ij,jk->ik", "ij,jk->ik", [3, 4], [4, 5]], ["ij,jk", "ij,jk->ik", [3, 4], [4, 5]], ["ji,jk", "ji,jk->ik", [4, 3], [4, 5]], ["ij->ji", "ij->ji", [3, 4]], ["ji", "ji->ij", [3, 4]], ["ij->", "ij->", [3, 4]], ["ij->j", "ij->j", [3, 4]],
    ["ii->i", "ii->i", [4, 4]], ["ii", "ii->", [4, 4]], ["iij->j", "iij->j", [3, 3, 2]], ["iii->i", "iii->i", [3, 3, 3]], ["ijij->ij", "ijij->ij", [2, 3, 2, 3]], ["i,i->", "i,i->", [5], [5]], ["i,j->ij", "i,j->ij", [3], [4]], ["i,j->ji", "i,j->ji", [3], [4]],
    ["ij,ij->ij", "ij,ij->ij", [3, 4], [3, 4]], ["bij,bjk->bik", "bij,bjk->bik", [2, 3, 4], [2, 4, 5]], ["bhqd,bhkd->bhqk", "bhqd,bhkd->bhqk", [2, 3, 4, 5], [2, 3, 6, 5]], ["bqhd,bkhd->bhqk", "bqhd,bkhd->bhqk", [2, 4, 3, 5], [2, 6, 3, 5]],
    ["...ij,...jk->...ik", "abij,abjk->abik", [2, 3, 2, 4], [2, 3, 4, 5]], ["...ij,jk", "abij,jk->abik", [2, 3, 2, 4], [4, 5]], ["i...->...", "iab->ab", [3, 2, 4]], ["...i->...", "abi->ab", [2, 4, 3]], ["...", "ab->ab", [2, 3]], ["...,...->...", "ab,ab->ab", [2, 1], [1, 3]],
    ["ij,jk,kl->il", "ij,jk,kl->il", [2, 3], [3, 4], [4, 5]], ["ij,jk,kl,lm->im", "ij,jk,kl,lm->im", [2, 9], [9, 2], [2, 7], [7, 3]], ["a,b,c->abc", "a,b,c->abc", [2], [3], [4]], ["dba,ca,dcb->", "dba,ca,dcb->", [3, 4, 5], [2, 5], [3, 2, 4]], ["ij,ik,il->jkl", "ij,ik,il->jkl", [3, 2], [3, 4], [3, 5]],
    ["ij,j->i", "ij,j->i", [3, 1], [4]], ["ij,jk->ik", "ij,jk->ik", [3, 1], [4, 5]], ["ijk,il,jm->klm", "ijk,il,jm->klm", [2, 3, 4], [2, 5], [3, 6]], ["ab,cd->", "ab,cd->", [2, 3], [4, 5]], ["iij,jk->ik", "iij,jk->ik", [3, 3, 4], [4, 2]], [" i j , j k -> k i ", "ij,jk->ki", [3, 4], [4, 5]],
  ];
  it.each(cases)("%s", (subscripts, written, ...shapes) => {
    const operands = shapes.map(operand);
    const [inputs, output] = written.split("->") as [string, string];
    const want = einsumByLoops(inputs.split(","), output, operands);
    const got = mx.einsum(subscripts, operands.map((o) => o.array));
    expect(got.shape).toEqual([...output].map((c) => {
      const sizes = inputs.split(",").flatMap((t, i) => [...t].flatMap((x, d) => (x === c ? [shapes[i]?.[d] as number] : [])));
      return Math.max(...sizes);
    }));
    expectClose(flat(got), want, { rtol: 1e-5, atol: 1e-5 });
  });
  it("integers", () => {
    const a = mx.array(new Int32Array([1, 2, 3, 4, 5, 6]));
    expect(mx.einsum("ij,kj->ik", [mx.reshape(a, [2, 3]), mx.reshape(a, [2, 3])]).tolist()).toEqual([[14, 32], [32, 77]]);
    expect(mx.einsum("ii", [mx.reshape(mx.array(new Int32Array([1, 2, 3, 4])), [2, 2])]).item()).toBe(5);
  });
  it("contracts the pair that shrinks most first", () => {
    const z = (...shape: number[]): MxArray => mx.zeros(shape);
    expect(mx.einsumPath("ij,jk", [z(2, 3), z(3, 4)])[0]).toEqual([[0, 1]]);
    expect(mx.einsumPath("ii", [z(2, 2)])[0]).toEqual([[0]]);
    expect(mx.einsumPath("ij,jk,kl->il", [z(2, 1000), z(1000, 30), z(30, 5)])[0]).toEqual([[0, 1], [0, 1]]);
    expect(mx.einsumPath("ij,jk,kl->il", [z(2, 5), z(5, 1000), z(1000, 5)])[0]).toEqual([[1, 2], [0, 1]]);
    expect(mx.einsumPath("ij,jk,kl->il", [z(2, 5), z(5, 1000), z(1000, 5)])[1]).toContain("Naive operations: 1.500e+5");
  });
  it("refuses what does not fit", () => {
    const a = mx.zeros([2, 3]);
    expect(() => mx.einsum("ij,jk", [a])).toThrow("[einsum] number of subscripts must equal the number of operands, got 2 and 1");
    expect(() => mx.einsum("ij,jk", [a, a])).toThrow('[einsum] dimension "j" has sizes 3 and 2');
    expect(() => mx.einsum("ijk", [a])).toThrow('[einsum] subscript "ijk" does not fit an operand with 2 dimensions');
    expect(() => mx.einsum("ij->k", [a])).toThrow('[einsum] output subscript "k" is in no input');
    expect(() => mx.einsum("i1->i", [a])).toThrow("[einsum] subscripts are letters");
    expect(() => mx.einsum("ij->ii", [a])).toThrow("[einsum] output subscripts must be different");
    expect(() => mx.einsum("ij", [])).toThrow("[einsum] at least one operand is required");
  });
});

describe("errors of products", () => {
  const f = (...shape: number[]): MxArray => mx.zeros(shape);
  it("name the op, the rule and what was given", () => {
    expect(() => mx.matmul(f(2, 3), f(4, 5))).toThrow("[matmul] last dimension of a must equal second last of b, got (2,3) and (4,5)");
    expect(() => mx.matmul(f(), f(2))).toThrow("[matmul] inputs must have at least one dimension");
    expect(() => mx.matmul(f(2, 3, 4), f(3, 4, 5))).toThrow("[matmul] shapes do not broadcast");
    expect(() => mx.matmul(mx.zeros([2, 2], mx.int32), mx.zeros([2, 2], mx.int32))).toThrow("[matmul] only floating point types are supported, got int32 and int32");
    expect(() => mx.addmm(f(3), f(2, 2), f(2, 2))).toThrow("[addmm] c must broadcast to the product's shape (2,2), got (3)");
    expect(() => mx.gatherMM(f(2, 3, 4), f(2, 5, 6), undefined, mx.array([0, 1], mx.uint32))).toThrow("[gatherMM] last dimension of a must equal second last of b, got (2,3,4) and (2,5,6)");
    expect(() => mx.gatherMM(f(2, 3, 4), f(2, 4, 6), mx.array([0.5]), undefined)).toThrow("[gatherMM] indices must be integers, got float32");
    expect(() => mx.inner(f(3), f(4))).toThrow("[inner] last dimensions must be equal");
    expect(() => mx.tensordot(f(3, 4), f(5, 6), 1)).toThrow("[tensordot] paired axes must have equal sizes");
    expect(() => mx.tensordot(f(3, 4), f(5, 6), 3)).toThrow("[tensordot] axes must be between 0 and the number of dimensions, got 3");
  });
});

describe("large products", () => {
  it("agree with float64 where rows, columns and k cross block borders", () => {
    const [M, N, K] = [530, 150, 600];
    const [a, b] = [operand([M, K]), operand([N, K])];
    const got = mx.matmul(a.array, mx.transpose(b.array)).tolist() as number[][];
    for (const [m, n] of [[0, 0], [503, 63], [504, 64], [529, 149], [255, 128], [517, 31]] as const) {
      let want = 0;
      for (let k = 0; k < K; k++) want += (a.data[m * K + k] as number) * (b.data[n * K + k] as number);
      expect(Math.abs((got[m]?.[n] as number) - want)).toBeLessThan(K ** 1.5 * 2 ** -24);
    }
  });
});
