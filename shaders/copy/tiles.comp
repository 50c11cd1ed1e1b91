#version 460
// Copies in which one dimension is contiguous at the source and another one at the destination (transpositions): square tiles go through shared memory, so
// that both sides see whole rows of a tile.
#include "units.glsl"
#extension GL_EXT_control_flow_attributes : require
layout(local_size_x = 256) in;

layout(push_constant) uniform Push {
  UnitPtr src;
  UnitPtr dst;
  // The dimension that is contiguous at the source: size and destination stride; and the one that is contiguous at the destination: size and source stride.
  uint across;
  int dstAcross;
  uint along;
  int srcAlong;
  uint acrossTiles;
  uint alongTiles;
  // Tiles in all, and the outer dimensions as in strided.comp.
  uint tiles;
  uint rank;
  int dims[20];
};

// Narrow units take larger tiles: a row of a tile should have 64 bytes or more.
#if UNIT <= 2
#define SIDE 64u
#else
#define SIDE 32u
#endif
#define ROWS (LANES / SIDE)
#define EACH (SIDE / ROWS)
// One more column, so that columns lie in different banks.
shared Value tile[SIDE][SIDE + 1u];

void main() {
  const uint index = gl_WorkGroupID.y * gl_NumWorkGroups.x + gl_WorkGroupID.x;
  if (index >= tiles) return;
  uint left = index / acrossTiles;
  const uint firstAcross = (index - left * acrossTiles) * SIDE;
  uint outer = left / alongTiles;
  const uint firstAlong = (left - outer * alongTiles) * SIDE;
  int s = 0;
  int d = 0;
  for (uint k = rank; k-- > 0u;) {
    uint at = outer;
    if (k > 0u) {
      const uint size = uint(dims[3u * k]);
      outer = at / size;
      at -= outer * size;
    }
    s += int(at) * dims[3u * k + 1u];
    d += int(at) * dims[3u * k + 2u];
  }
  const uint x = gl_LocalInvocationIndex % SIDE;
  const uint y = gl_LocalInvocationIndex / SIDE;
  s += int(firstAcross + x) + int(firstAlong) * srcAlong;
  // All loads are in flight together.
  Value mine[EACH];
  const bool inAcross = firstAcross + x < across;
  [[unroll]] for (uint k = 0; k < EACH; k++) {
    const uint j = y + k * ROWS;
    if (inAcross && firstAlong + j < along) mine[k] = read(src, s + int(j) * srcAlong);
  }
  [[unroll]] for (uint k = 0; k < EACH; k++) tile[y + k * ROWS][x] = mine[k];
  barrier();
  d += int(firstAlong + x) + int(firstAcross) * dstAcross;
  const bool inAlong = firstAlong + x < along;
  [[unroll]] for (uint k = 0; k < EACH; k++) {
    const uint j = y + k * ROWS;
    if (inAlong && firstAcross + j < across) write(dst, d + int(j) * dstAcross, tile[x][j]);
  }
}
