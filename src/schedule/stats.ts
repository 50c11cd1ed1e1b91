/** What evaluations did; read by tests and reports. */
export interface EvalStats {
  evaluations: number;
  commands: number;
  fusedGroups: number;
  absorbedNodes: number;
  /** Of those, the ones whose results were stored all the same. */
  storedNodes: number;
  /** Groups around reductions of rows; they count as fused groups as well. */
  rowGroups: number;
  /** Those of them that reduce columns. */
  columnGroups: number;
  /** Sums that a product's kernel made (schedule/residual.ts). */
  productSums: number;
  /** Products of one row whose command runs together with one before (schedule/siblings.ts). */
  together: number;
  /** Groups that a product's kernel finished (schedule/epilogue.ts); they do not count as fused groups. */
  productEpilogues: number;
  /** Launches of several products of one array (schedule/siblings-gpu.ts). */
  siblingLaunches: number;
  donations: number;
  layoutCopies: number;
  composites: number;
  /** Dispatches on the GPU, and ops of GPU streams that ran on the CPU. */
  dispatches: number;
  fallbacks: number;
  /** Arrays that were computed early (schedule/flush.ts). */
  flushes: number;
  /** Calls of compiled functions: plans that were made, evaluations by a plan that was there, evaluations op by op because there can be no plan. */
  plansMade: number;
  plansReused: number;
  plansRefused: number;
}
export const stats: EvalStats = { evaluations: 0, commands: 0, fusedGroups: 0, absorbedNodes: 0, storedNodes: 0, rowGroups: 0, columnGroups: 0, productSums: 0, together: 0, productEpilogues: 0, siblingLaunches: 0, donations: 0, layoutCopies: 0, composites: 0, dispatches: 0, fallbacks: 0, flushes: 0, plansMade: 0, plansReused: 0, plansRefused: 0 };
