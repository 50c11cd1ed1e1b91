/** Einstein summation: parsing of subscripts, order of contractions, and contraction through transposes and matmul. */
import type { MxArray } from "../core/array.ts";
import type { StreamOrDevice } from "../core/device.ts";
import { promote } from "../core/dtype.ts";
import { opError } from "../core/error.ts";
import { formatShape } from "../core/shape.ts";
import { noteSizes, onesCount } from "../core/sizes.ts";
import { multiply } from "./binary.ts";
import { astype } from "./cast.ts";
import { type ArrayLike, toArray } from "./convert.ts";
import { matmul } from "./matmul.ts";
import { diagonal, reshape, squeeze, transpose } from "./movement.ts";
import { sum } from "./reduce.ts";
import { within } from "./scope.ts";

/** Labels of an operand's dimensions: letters, and "0", "1", ... for the dimensions of an ellipsis, counted from the last. */
type Labels = readonly string[];
interface Parsed {
  readonly inputs: readonly Labels[];
  readonly output: Labels;
  /** Size of each label; a dimension of size 1 gives way to any other. */
  readonly sizes: ReadonlyMap<string, number>;
}
const letter = /^[a-zA-Z]$/;

/** One subscript as labels; `undefined` stands for the ellipsis. */
function parseTerm(op: string, term: string): (string | undefined)[] {
  const parts = term.split("...");
  if (parts.length > 2) throw opError(op, `a subscript may hold one ellipsis, got ${JSON.stringify(term)}`);
  const labels = parts.flatMap((part, i) => (i === 0 ? [...part] : [undefined, ...part]));
  for (const c of labels) if (c !== undefined && !letter.test(c)) throw opError(op, `subscripts are letters and "...", got ${JSON.stringify(term)}`);
  return labels;
}

/** Labels of a term for an array of `rank` dimensions. */
function expandTerm(op: string, term: string, rank: number): Labels {
  const labels = parseTerm(op, term);
  const hidden = rank - labels.filter((c) => c !== undefined).length;
  const open = labels.includes(undefined);
  if (hidden < 0 || (!open && hidden > 0)) throw opError(op, `subscript ${JSON.stringify(term)} does not fit an operand with ${rank} dimensions`);
  const dots = Array.from({ length: hidden }, (_, i) => String(hidden - 1 - i));
  return labels.flatMap((c) => (c === undefined ? dots : [c]));
}

function parse(op: string, subscripts: string, shapes: readonly (readonly number[])[]): Parsed {
  const [left, right, more] = subscripts.replaceAll(" ", "").split("->");
  if (more !== undefined) throw opError(op, `subscripts may hold one "->", got ${JSON.stringify(subscripts)}`);
  const terms = (left as string).split(",");
  if (terms.length !== shapes.length) throw opError(op, `number of subscripts must equal the number of operands, got ${terms.length} and ${shapes.length}`);
  const inputs = terms.map((t, i) => expandTerm(op, t, (shapes[i] as readonly number[]).length));
  const sizes = new Map<string, number>();
  for (const [i, labels] of inputs.entries()) {
    for (const [d, c] of labels.entries()) {
      const size = (shapes[i] as readonly number[])[d] as number;
      const known = sizes.get(c) ?? 1;
      if (known !== 1 && size !== 1 && known !== size) throw opError(op, `dimension ${JSON.stringify(c)} has sizes ${known} and ${size} in ${JSON.stringify(subscripts)}, got shapes ${shapes.map(formatShape).join(", ")}`);
      sizes.set(c, known === 1 ? size : known);
    }
  }
  return { inputs, output: outputLabels(op, right, inputs, sizes), sizes };
}

/** The labels after "->"; without it, the ellipsis and then all letters that occur once, in order of the alphabet. */
function outputLabels(op: string, text: string | undefined, inputs: readonly Labels[], sizes: ReadonlyMap<string, number>): Labels {
  const hidden = [...sizes.keys()].filter((c) => !letter.test(c)).sort((a, b) => Number(b) - Number(a));
  if (text === undefined) {
    const all = inputs.flat();
    const once = [...sizes.keys()].filter((c) => letter.test(c) && all.filter((x) => x === c).length === 1);
    return [...hidden, ...once.sort((a, b) => (a < b ? -1 : 1))];
  }
  const output = parseTerm(op, text).flatMap((c) => (c === undefined ? hidden : [c]));
  for (const c of output) if (!sizes.has(c)) throw opError(op, `output subscript ${JSON.stringify(c)} is in no input`);
  if (new Set(output).size !== output.length) throw opError(op, `output subscripts must be different, got ${JSON.stringify(text)}`);
  return output;
}

const unique = (labels: Labels): string[] => [...new Set(labels)];
const sizeIn = (labels: Labels, sizes: ReadonlyMap<string, number>): number => labels.reduce((n, c) => n * (sizes.get(c) as number), 1);

interface Step {
  /** Positions of the operands, ascending; they leave the list and the result is put at its end. */
  readonly positions: number[];
  readonly result: Labels;
  readonly cost: number;
}
interface Candidate extends Step {
  readonly removed: number;
}

/** What a contraction of the terms at `positions` leaves, and its number of operations. */
function contraction(terms: readonly Labels[], positions: readonly number[], output: Labels, sizes: ReadonlyMap<string, number>): Candidate {
  const own = unique(positions.flatMap((i) => terms[i] as Labels));
  const wanted = new Set([...output, ...terms.filter((_, i) => !positions.includes(i)).flat()]);
  const result = own.filter((c) => wanted.has(c));
  const factor = Math.max(1, positions.length - 1) + (result.length < own.length ? 1 : 0);
  const before = positions.reduce((n, i) => n + sizeIn(unique(terms[i] as Labels), sizes), 0);
  return { positions: [...positions], result, cost: sizeIn(own, sizes) * factor, removed: before - sizeIn(result, sizes) };
}

/**
 * Order of contractions: always the pair that shrinks the operands most, then the cheapest, as NumPy's and opt_einsum's greedy path
 * (Smith and Gray, "opt_einsum", 2018). No intermediate may be larger than the largest operand or the result.
 */
function greedyPath(p: Parsed): { steps: Step[]; naive: number } {
  let terms = [...p.inputs];
  const all = terms.map((_, i) => i);
  const whole = contraction(terms, all, p.output, p.sizes);
  if (terms.length <= 2) return { steps: [whole], naive: whole.cost };
  const limit = Math.max(sizeIn(p.output, p.sizes), ...terms.map((t) => sizeIn(unique(t), p.sizes)));
  const steps: Step[] = [];
  let spent = 0;
  while (terms.length > 1) {
    const pairs = (outer: boolean): Candidate[] => {
      const found: Candidate[] = [];
      for (let i = 0; i < terms.length; i++) {
        for (let j = i + 1; j < terms.length; j++) {
          if (!outer && !(terms[i] as Labels).some((c) => (terms[j] as Labels).includes(c))) continue;
          const c = contraction(terms, [i, j], p.output, p.sizes);
          if (sizeIn(c.result, p.sizes) <= limit && spent + c.cost <= whole.cost) found.push(c);
        }
      }
      return found;
    };
    let found = pairs(false);
    if (found.length === 0) found = pairs(true);
    if (found.length === 0) found = [contraction(terms, terms.map((_, i) => i), p.output, p.sizes)];
    const best = found.reduce((a, b) => (b.removed > a.removed || (b.removed === a.removed && b.cost < a.cost) ? b : a));
    steps.push(best);
    spent += best.cost;
    terms = [...terms.filter((_, i) => !best.positions.includes(i)), best.result];
  }
  return { steps, naive: whole.cost };
}

/** An operand during the evaluation. */
interface Term {
  readonly array: MxArray;
  readonly labels: Labels;
}

/** Diagonals for repeated labels; labels that nothing else needs are summed; size-1 dimensions that are broadcast are dropped. */
function simplify(t: Term, wanted: ReadonlySet<string>, sizes: ReadonlyMap<string, number>, s?: StreamOrDevice | null): Term {
  let { array } = t;
  let labels = [...t.labels];
  const narrow = labels.flatMap((c, i) => (array.desc.shape[i] === 1 && sizes.get(c) !== 1 ? [i] : []));
  if (narrow.length > 0) {
    array = squeeze(array, narrow, s);
    labels = labels.filter((_, i) => !narrow.includes(i));
  }
  for (let i = 0; i < labels.length; i++) {
    for (let j = labels.indexOf(labels[i] as string, i + 1); j > 0; j = labels.indexOf(labels[i] as string, i + 1)) {
      const c = labels[i] as string;
      array = diagonal(array, 0, i, j, s);
      labels = [...labels.filter((_, d) => d !== i && d !== j), c];
    }
  }
  const gone = labels.flatMap((c, i) => (wanted.has(c) ? [] : [i]));
  if (gone.length > 0) {
    array = sum(array, gone, false, s);
    labels = labels.filter((_, i) => !gone.includes(i));
  }
  return { array, labels };
}

/** Sum of products of two operands; \`wanted\` labels stay. */
function contractPair(x: Term, y: Term, wanted: ReadonlySet<string>, sizes: ReadonlyMap<string, number>, s?: StreamOrDevice | null): Term {
  const a = simplify(x, new Set([...wanted, ...y.labels.filter((c) => dimension(y, c) === sizes.get(c))]), sizes, s);
  const b = simplify(y, new Set([...wanted, ...a.labels]), sizes, s);
  const shared = a.labels.filter((c) => b.labels.includes(c));
  const batch = shared.filter((c) => wanted.has(c));
  const summed = shared.filter((c) => !wanted.has(c));
  const [freeA, freeB] = [a.labels.filter((c) => !shared.includes(c)), b.labels.filter((c) => !shared.includes(c))];
  const labels = [...batch, ...freeA, ...freeB];
  const shapeOf = (list: Labels): number[] => list.map((c) => sizes.get(c) as number);
  if (summed.length === 0 || !promote(a.array.dtype, b.array.dtype).isFloat) {
    const order = [...labels, ...summed];
    const spread = (t: Term): MxArray => reshape(ordered(t, order.filter((c) => t.labels.includes(c)), s), order.map((c) => (t.labels.includes(c) ? (sizes.get(c) as number) : 1)), s);
    const product = multiply(spread(a), spread(b), s);
    return { labels, array: summed.length === 0 ? product : sum(product, summed.map((_, i) => labels.length + i), false, s) };
  }
  const [B, M, N, K] = [batch, freeA, freeB, summed].map((l) => sizeIn(l, sizes)) as [number, number, number, number];
  const front = batch.length > 0 ? [B] : [];
  const left = reshape(ordered(a, [...batch, ...freeA, ...summed], s), [...front, M, K], s);
  // The right operand keeps its summed labels where they are cheaper to read: last when they already are.
  const last = b.labels[b.labels.length - 1] as string;
  const right = summed.includes(last)
    ? transpose(reshape(ordered(b, [...batch, ...freeB, ...summed], s), [...front, N, K], s), front.length > 0 ? [0, 2, 1] : [1, 0], s)
    : reshape(ordered(b, [...batch, ...summed, ...freeB], s), [...front, K, N], s);
  return { labels, array: reshape(matmul(left, right, s), shapeOf(labels), s) };
}
const dimension = (t: Term, c: string): number => t.array.desc.shape[t.labels.indexOf(c)] as number;

/** The array with its dimensions in the order of \`labels\`. */
function ordered(t: Term, labels: Labels, s?: StreamOrDevice | null): MxArray {
  const axes = labels.map((c) => t.labels.indexOf(c));
  return axes.every((a, i) => a === i) ? t.array : transpose(t.array, axes, s);
}

/**
 * Einstein summation over the operands: letters name dimensions, `...` the others, which broadcast; a letter that is not in the output is
 * summed, a letter that an operand repeats takes its diagonal. Without "->" the output has the ellipsis, then the letters that occur once,
 * sorted. The order of contractions is `einsumPath`'s.
 */
export function einsum(subscripts: string, operands: readonly ArrayLike[], s?: StreamOrDevice | null): MxArray {
  return within(() => {
    const arrays = operandsOf("einsum", subscripts, operands);
    // The order of the contractions follows the sizes.
    noteSizes(onesCount);
    const parsed = parse("einsum", subscripts, arrays.map((a) => a.desc.shape));
    const dtype = arrays.map((a) => a.dtype).reduce(promote);
    let terms: Term[] = arrays.map((a, i) => ({ array: a.dtype === dtype ? a : astype(a, dtype, s), labels: parsed.inputs[i] as Labels }));
    for (const step of greedyPath(parsed).steps) {
      const chosen = step.positions.map((i) => terms[i] as Term);
      const rest = terms.filter((_, i) => !step.positions.includes(i));
      let result = chosen[0] as Term;
      for (let i = 1; i < chosen.length; i++) {
        const later = [...parsed.output, ...rest.flatMap((t) => t.labels), ...chosen.slice(i + 1).flatMap((t) => t.labels)];
        result = contractPair(result, chosen[i] as Term, new Set(later), parsed.sizes, s);
      }
      if (chosen.length === 1) result = simplify(result, new Set([...parsed.output, ...rest.flatMap((t) => t.labels)]), parsed.sizes, s);
      terms = [...rest, result];
    }
    return ordered(terms[0] as Term, parsed.output, s);
  });
}

/**
 * The contractions that `einsum` does: for each the positions of its operands, which leave the list while the result goes to its end;
 * and a description of them.
 */
export function einsumPath(subscripts: string, operands: readonly ArrayLike[], _s?: StreamOrDevice | null): [number[][], string] {
  const arrays = operandsOf("einsumPath", subscripts, operands);
  const parsed = parse("einsumPath", subscripts, arrays.map((a) => a.desc.shape));
  const { steps, naive } = greedyPath(parsed);
  const optimized = steps.reduce((n, step) => n + step.cost, 0);
  const lines = steps.map((step) => `  ${JSON.stringify(step.positions)} -> ${step.result.join("") || "scalar"}, ${step.cost.toExponential(3)} operations`);
  const text = [
    `Complete contraction: ${subscripts}`, `Naive operations: ${naive.toExponential(3)}`, `Optimized operations: ${optimized.toExponential(3)}`,
    `Theoretical speedup: ${(naive / Math.max(1, optimized)).toPrecision(4)}`, ...lines,
  ];
  return [steps.map((step) => step.positions), text.join("\n")];
}

function operandsOf(op: string, subscripts: string, operands: readonly ArrayLike[]): MxArray[] {
  if (typeof subscripts !== "string") throw new TypeError(`[${op}] subscripts must be a string, got ${typeof subscripts}`);
  if (!Array.isArray(operands)) throw new TypeError(`[${op}] operands must be a list of arrays, got ${typeof operands}`);
  if (operands.length === 0) throw opError(op, "at least one operand is required, got none");
  return operands.map((a) => toArray(a as ArrayLike));
}
