/**
 * What a recorded function holds of the sizes of its arrays beside the parameters of its ops. Where JavaScript code decides by sizes what to record, or computes a constant
 * from them, the record is only right for arrays that agree with it there. Code that does so says it here while it is recorded; `compile` and its like ask.
 */

/** Nothing; which sizes are 1 (and so what is broadcast); all sizes. */
export type SizeUse = 0 | 1 | 2;
export const onesCount: SizeUse = 1;
export const sizesCount: SizeUse = 2;

let used: SizeUse = 0;

/** What is being recorded is right only for arrays that agree in these sizes. */
export function noteSizes(use: SizeUse): void {
  if (use > used) used = use;
}
/** What `f` notes beside its result. */
export function sizesUsedBy<T>(f: () => T): { result: T; use: SizeUse } {
  const before = used;
  used = 0;
  try {
    const result = f();
    return { result, use: used };
  } finally {
    if (before > used) used = before;
  }
}
