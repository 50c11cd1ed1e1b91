/** Multi-dimensional arrays as plain lists of numbers, written for clarity: the other side of comparisons. */

type Shape = readonly number[];
const size = (shape: Shape): number => shape.reduce((a, b) => a * b, 1);

/** Index of a row-major position. */
function unravel(shape: Shape, position: number): number[] {
  const index = new Array<number>(shape.length);
  for (let d = shape.length - 1, rest = position; d >= 0; d--) {
    index[d] = rest % (shape[d] as number);
    rest = Math.floor(rest / (shape[d] as number));
  }
  return index;
}
const ravel = (shape: Shape, index: readonly number[]): number => shape.reduce((at, d, i) => at * d + (index[i] as number), 0);

export class Plain {
  readonly shape: number[];
  readonly data: number[];
  constructor(shape: Shape, data: readonly number[]) {
    if (data.length !== size(shape)) throw new Error(`${data.length} numbers for shape (${shape.join(",")})`);
    this.shape = [...shape];
    this.data = [...data];
  }
  at(index: readonly number[]): number {
    return this.data[ravel(this.shape, index)] as number;
  }
  map(f: (x: number) => number): Plain {
    return new Plain(this.shape, this.data.map(f));
  }
  /** The element at each index of `shape` is this array's element at `from(index)`. */
  gather(shape: Shape, from: (index: number[]) => readonly number[]): Plain {
    return new Plain(shape, Array.from({ length: size(shape) }, (_, i) => this.at(from(unravel(shape, i)))));
  }
  /** Shape of two arrays broadcast against each other, undefined when they do not fit. */
  common(o: Plain): number[] | undefined {
    const rank = Math.max(this.shape.length, o.shape.length);
    const of = (s: Shape, i: number): number => s[i - rank + s.length] ?? 1;
    const shape = Array.from({ length: rank }, (_, i) => (of(this.shape, i) === 1 ? of(o.shape, i) : of(this.shape, i)));
    return shape.every((d, i) => [1, d].includes(of(this.shape, i)) && [1, d].includes(of(o.shape, i))) ? shape : undefined;
  }
  broadcasts(o: Plain): boolean {
    const shape = this.common(o);
    return shape !== undefined && size(shape) <= 4000;
  }
  broadcastTo(shape: Shape): Plain {
    const lead = shape.length - this.shape.length;
    return this.gather(shape, (index) => this.shape.map((d, i) => (d === 1 ? 0 : (index[i + lead] as number))));
  }
  zip(o: Plain, f: (a: number, b: number) => number): Plain {
    const shape = this.common(o) as number[];
    const [a, b] = [this.broadcastTo(shape), o.broadcastTo(shape)];
    return new Plain(shape, a.data.map((x, i) => f(x, b.data[i] as number)));
  }
  /** Every line along `axis`, replaced by one of the same length. */
  lines(axis: number, f: (xs: number[]) => number[]): Plain {
    const out = new Plain(this.shape, this.data);
    for (let i = 0; i < this.data.length; i++) {
      const index = unravel(this.shape, i);
      if (index[axis] !== 0) continue;
      const places = Array.from({ length: this.shape[axis] as number }, (_, k) => ravel(this.shape, index.map((x, d) => (d === axis ? k : x))));
      f(places.map((q) => this.data[q] as number)).forEach((x, k) => {
        out.data[places[k] as number] = x;
      });
    }
    return out;
  }
  reduce(axis: number, keep: boolean, f: (xs: number[]) => number): Plain {
    const kept = this.lines(axis, (xs) => [f(xs), ...xs.slice(1)]).slice(this.shape.map((d, i) => (i === axis ? [0] : Array.from({ length: d }, (_, k) => k))));
    return keep ? kept : kept.reshape(this.shape.filter((_, i) => i !== axis));
  }
  scan(axis: number, reverse: boolean): Plain {
    return this.lines(axis, (xs) => {
      const order = reverse ? xs.reverse() : xs;
      let total = 0;
      const sums = order.map((x) => (total += x));
      return reverse ? sums.reverse() : sums;
    });
  }
  transpose(axes: readonly number[]): Plain {
    return this.gather(axes.map((a) => this.shape[a] as number), (index) => this.shape.map((_, d) => index[axes.indexOf(d)] as number));
  }
  reshape(shape: Shape): Plain {
    return new Plain(shape, this.data);
  }
  /** Picks the named places along every axis. */
  slice(picks: readonly (readonly number[])[]): Plain {
    return this.gather(picks.map((p) => p.length), (index) => index.map((x, d) => (picks[d] as number[])[x] as number));
  }
  put(picks: readonly (readonly number[])[], value: number): Plain {
    return new Plain(this.shape, this.data.map((x, i) => (unravel(this.shape, i).every((k, d) => (picks[d] as number[]).includes(k)) ? value : x)));
  }
  concatenate(others: readonly Plain[], axis: number): Plain {
    const all = [this, ...others];
    const shape = this.shape.map((d, i) => (i === axis ? all.reduce((n, o) => n + (o.shape[i] as number), 0) : d));
    const at = (index: number[]): number => {
      let k = index[axis] as number;
      let from = 0;
      for (; k >= ((all[from] as Plain).shape[axis] as number); from++) k -= (all[from] as Plain).shape[axis] as number;
      return (all[from] as Plain).at(index.map((x, d) => (d === axis ? k : x)));
    };
    return new Plain(shape, Array.from({ length: size(shape) }, (_, i) => at(unravel(shape, i))));
  }
  matmul(o: Plain): Plain {
    const [m, k, n] = [this.shape[0] as number, this.shape[1] as number, o.shape[1] as number];
    return new Plain([m, n], Array.from({ length: m * n }, (_, i) => {
      let sum = 0;
      for (let j = 0; j < k; j++) sum += this.at([Math.floor(i / n), j]) * o.at([j, i % n]);
      return sum;
    }));
  }
}
export const plain = (shape: Shape, data: readonly number[]): Plain => new Plain(shape, data);
