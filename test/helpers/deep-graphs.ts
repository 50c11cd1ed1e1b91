/**
 * Very deep graphs, and a long loop without `eval`, in a process of their own: prints a line of JSON with what they gave and took. Run with `--expose-gc`.
 *
 *   deep-graphs.ts chain NODES | transforms NODES | loop OPS SIZE | scope OPS SIZE | kept SIZE
 */
import { core as mx } from "../../src/index.ts";
import { addTracer, stats } from "../../src/schedule/run.ts";

type A = mx.MxArray;
const [, , task, first = "0", second = "0"] = process.argv;
/** Bytes after the garbage collector's callbacks have closed the handles of what is gone. */
async function heap(): Promise<number> {
  for (let i = 0; i < 3; i++) {
    (globalThis as unknown as { gc(): void }).gc();
    await new Promise((r) => setTimeout(r, 10));
  }
  return process.memoryUsage().heapUsed;
}
/** x + n / n, one addition after the other, every third one a multiplication by 1. Handles are closed as the chain grows. */
function chain(x: A, n: number): A {
  const step = mx.array(1 / n, mx.float64);
  let y = x;
  for (let i = 0; i < n; i++) {
    const z = i % 3 === 2 ? mx.multiply(y, 1) : mx.add(y, step);
    if (y !== x) y.dispose();
    y = z;
  }
  return y;
}
/** How much the chain adds. */
const added = (n: number): number => (n - Math.floor(n / 3)) / n;
const value = (a: A): number => a.astype(mx.float64).item() as number;

async function chains(n: number): Promise<object> {
  const x = mx.array(0.5, mx.float64);
  const before = await heap();
  const y = chain(x, n);
  const built = process.memoryUsage().heapUsed;
  const sum = value(y) - 0.5;
  y.dispose();
  const lazy = chain(x, n);
  lazy.dispose();
  const freed = await heap();
  const gradient = mx.grad((a: A) => mx.multiply(chain(a, n), a))(x);
  const slope = value(gradient);
  gradient.dispose();
  return { sum, added: added(n), slope, grown: freed - before, built: built - before, after: (await heap()) - before, arrays: mx.getActiveMemory() };
}

function transforms(n: number): object {
  const x = mx.array([0.5, 1], mx.float64);
  const f = (a: A): A => chain(a, n);
  const forward = mx.jvp(f, [x], [x])[1][0] as A;
  const batched = mx.vmap(f)(x);
  const compiled = mx.compile(f);
  const twice = mx.grad((a: A) => mx.sum(mx.checkpoint(f)(a)))(x);
  return { added: added(n), forward: forward.tolist(), batched: batched.tolist(), compiled: compiled(x).tolist(), again: compiled(batched).tolist(), checkpoint: twice.tolist() };
}

/** The handles of the arrays between stay open: the loop never gives the garbage collector's callbacks a turn. */
function loop(ops: number, size: number): object {
  let y = mx.multiply(mx.ones([size]), mx.array(0.5));
  for (let i = 0; i < ops; i += 2) y = mx.sin(mx.add(y, 0.25));
  const flushes = stats.flushes;
  const results = [y.index(0), y.index(size - 1)].map(value);
  return { results, flushes, peak: mx.getPeakMemory() };
}

/** The loop inside of `tidy`. */
function scope(ops: number, size: number): object {
  let dispatched = 0;
  const x = mx.multiply(mx.ones([size]), mx.array(0.5));
  mx.eval(x);
  const y = mx.tidy(() => {
    let t = x;
    // Not elementwise, so that each op is a kernel of its own.
    for (let i = 0; i < ops; i++) t = mx.cumsum(t);
    return t;
  });
  const flushes = stats.flushes;
  const stop = addTracer({ recorded: (node) => {
    dispatched += Number(node.op.name === "cumsum");
  } });
  mx.eval(y);
  stop();
  return { results: [], flushes, dispatched, peak: mx.getPeakMemory() };
}

/** What must not be computed twice: gradients and their forward pass, and the state of a cache; sizes are such that many flushes happen. */
function kept(size: number): object {
  let products = 0;
  let updates = 0;
  const stop = addTracer({ recorded: (node) => {
    products += Number(node.op.name === "matmul");
    updates += Number(node.op.name === "dynamicSliceUpdate");
  } });
  const weights = Array.from({ length: 6 }, (_, i) => mx.multiply(mx.eye(size), 1 + i / 10));
  mx.eval(weights);
  const grads = mx.grad((ws: A[]) => mx.mean(ws.reduce((y, w) => mx.tanh(mx.matmul(y, w)), mx.ones([size, size]))))(weights) as A[];
  const state = grads.map((g) => mx.multiply(g, 0.1));
  const next = weights.map((w, i) => mx.subtract(w, mx.sqrt(mx.abs(state[i] as A))));
  const early = stats.flushes;
  mx.eval(next, state, grads);
  const trained = products;
  let cache = mx.zeros([8, size, size]);
  let y = mx.ones([1, size, size]);
  for (let i = 0; i < 8; i++) {
    cache = mx.sliceUpdate(cache, y, mx.array([i], mx.int32), [0]);
    y = mx.multiply(mx.sum(cache, 0, true), 0.5);
  }
  const later = stats.flushes - early;
  mx.eval(y, cache);
  stop();
  return { early, later, trained, updates, results: [...next, ...state].map((a) => value(mx.sum(a))), cache: value(mx.sum(cache)) };
}

const run = { chain: () => chains(Number(first)), transforms: () => transforms(Number(first)), loop: () => loop(Number(first), Number(second)), scope: () => scope(Number(first), Number(second)), kept: () => kept(Number(first)) }[task as "chain"];
console.log(JSON.stringify(await run()));
