/** mx.depends: what is evaluated, in which order, and transforms. */
import { describe, expect, test } from "vitest";
import { core as mx } from "../src/index.ts";
import { setTracer } from "../src/schedule/run.ts";

type A = mx.MxArray;
function opsOf(work: () => void): string[] {
  const seen: string[] = [];
  setTracer({ recorded: (node) => void seen.push(node.op.name) });
  try {
    work();
  } finally {
    setTracer(undefined);
  }
  return seen;
}

describe("depends", () => {
  test("evaluating the result evaluates the dependencies, before what is computed from it", () => {
    const [a, b] = [mx.array([1, 2]), mx.sum(mx.array([3, 4]))];
    const out = mx.depends(a, b);
    const order = opsOf(() => mx.eval(mx.exp(out)));
    expect(order).toEqual(["sum", "depends", "exp"]);
    expect([out.tolist(), b.desc.status]).toEqual([[1, 2], "available"]);
  });
  test("an Array gives an Array", () => {
    const [x, y] = mx.depends([mx.array(1), mx.array(2)], [mx.array(3)]) as [A, A];
    expect([x.item(), y.item()]).toEqual([1, 2]);
    expect(mx.depends(mx.array(1), []).item()).toBe(1);
  });
  test("no gradient flows to dependencies; vmap batches the input only", () => {
    const f = (x: A, y: A): A => mx.sum(mx.square(mx.depends(x, mx.exp(y))));
    expect((mx.grad(f, [0, 1])(mx.array([1, 2]), mx.array([5, 6])) as A[]).map((g) => g.tolist())).toEqual([[2, 4], [0, 0]]);
    expect(mx.vmap((x: A) => mx.depends(x, mx.array(1)))(mx.array([[1], [2]])).tolist()).toEqual([[1], [2]]);
    expect(mx.vmap((x: A) => mx.depends(mx.array(7), x))(mx.array([1, 2])).tolist()).toEqual([7, 7]);
    expect(mx.jvp((x: A) => mx.depends(x, mx.exp(x)), [mx.array(2)], [mx.array(3)])[1][0]?.item()).toBe(3);
  });
  test("errors", () => {
    expect(() => mx.depends(1 as never, mx.array(1))).toThrow("[depends] inputs must be arrays, got number");
    expect(() => mx.depends(mx.array(1), [null as never])).toThrow("[depends] dependencies must be arrays, got null");
  });
});
