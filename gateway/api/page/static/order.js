// Hierarchical clustering (average linkage): an order that puts similar texts together. Clusters are joined at their nearest ends.

// `matrix` is the cosines of n texts, row-major. Returns all indices, once each. The same texts give the same order.
export function alikeTogether(matrix, n) {
  const near = Float64Array.from(matrix);
  const clusters = Array.from({ length: n }, (_, index) => [index]);
  const alive = new Set(clusters.keys());
  const chain = []; // nearest-neighbour chain: each is the nearest of the one before; mutual nearest neighbours are joined
  while (alive.size > 1) {
    if (!chain.length) chain.push(alive.values().next().value);
    const at = chain.at(-1), before = chain.at(-2);
    let best = before ?? -1;
    for (const other of alive) {
      if (other !== at && (best < 0 || near[at * n + other] > near[at * n + best])) best = other;
    }
    if (best !== before) { chain.push(best); continue; }
    chain.splice(-2);
    join(near, n, alive, clusters, at, best, matrix);
  }
  return clusters[alive.values().next().value] ?? [];
}

function join(near, n, alive, clusters, a, b, matrix) {
  const [sizeA, sizeB] = [clusters[a].length, clusters[b].length];
  for (const other of alive) {
    near[a * n + other] = near[other * n + a] = (sizeA * near[a * n + other] + sizeB * near[b * n + other]) / (sizeA + sizeB);
  }
  clusters[a] = laid(clusters[a], clusters[b], (i, j) => matrix[i * n + j]);
  alive.delete(b);
}

// Joins two rows end to end. Of the four ways, it takes the one whose adjoining ends are most similar.
function laid(a, b, cosine) {
  const ways = [[a, b], [a, [...b].reverse()], [[...a].reverse(), b], [[...a].reverse(), [...b].reverse()]];
  const best = ways.reduce((found, way) => (meeting(way, cosine) > meeting(found, cosine) + 1e-12 ? way : found));
  return best.flat();
}

const meeting = ([left, right], cosine) => cosine(left.at(-1), right[0]);
