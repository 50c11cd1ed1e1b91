/**
 * Source of the dense matrix products. Four ways, chosen by the launch in src/ops/matmul.ts:
 * - packed GEMM (gemm-packed.ts): `pack`, then `gemm`; after Goto and van de Geijn, "Anatomy of high-performance matrix multiplication" (2008);
 * - short sums of float32 rows as they lie (gemm-packed.ts): `direct`, which packs the right operand alone;
 * - few rows times a matrix whose rows run along k (gemm-rows.ts): `dot`, `dotRuns`;
 * - few rows times a matrix whose rows run along n (gemm-rows.ts): `axpy`.
 */
import { common } from "./gemm-common.ts";
import { packedSource } from "./gemm-packed.ts";
import { rowsSource } from "./gemm-rows.ts";

export const source = (): string => common + packedSource() + rowsSource();
