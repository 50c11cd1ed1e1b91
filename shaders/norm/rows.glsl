// How a workgroup walks over rows: a whole row with all its invocations, or, when rows are short, each subgroup rows of its own, without a barrier.
// Needs the specialization constants `lanes` (local size in x, at most 128 subgroups) and `bySubgroup`.
#include "common/reduce.glsl"
uint rowLane() { return bySubgroup ? gl_SubgroupInvocationID : gl_LocalInvocationIndex; }
uint rowLanes() { return bySubgroup ? gl_SubgroupSize : lanes; }
uint firstRow(uint rowsPerGroup) { return (gl_WorkGroupID.y * gl_NumWorkGroups.x + gl_WorkGroupID.x) * rowsPerGroup + (bySubgroup ? gl_SubgroupID : 0); }
uint endRow(uint rowsPerGroup, uint rows) { return min((gl_WorkGroupID.y * gl_NumWorkGroups.x + gl_WorkGroupID.x + 1) * rowsPerGroup, rows); }
uint rowStep() { return bySubgroup ? gl_NumSubgroups : 1; }
float rowSum(float x) { return bySubgroup ? subgroupAdd(x) : groupSum(x); }
float rowMax(float x) { return bySubgroup ? subgroupMax(x) : groupMax(x); }
