// Reductions over a workgroup. Needs `lanes` (a power of two: the local size in x) and gl_LocalInvocationIndex; all invocations must take part.
// No subgroup size is assumed: subgroups reduce first when they are there, the rest goes through shared memory.
#extension GL_KHR_shader_subgroup_arithmetic : require
shared float groupPart[128];
float groupMax(float x) {
  x = subgroupMax(x);
  if (gl_SubgroupSize >= lanes) return x;
  barrier();
  if (subgroupElect()) groupPart[gl_SubgroupID] = x;
  barrier();
  x = groupPart[0];
  for (uint i = 1; i < gl_NumSubgroups; i++) x = max(x, groupPart[i]);
  return x;
}
float groupSum(float x) {
  x = subgroupAdd(x);
  if (gl_SubgroupSize >= lanes) return x;
  barrier();
  if (subgroupElect()) groupPart[gl_SubgroupID] = x;
  barrier();
  x = groupPart[0];
  for (uint i = 1; i < gl_NumSubgroups; i++) x += groupPart[i];
  return x;
}
