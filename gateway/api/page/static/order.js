// An order in which alike texts stand together: clusters joined by average linkage, each laid beside the end it is nearest to.

// `matrix` holds the cosines of n texts, row after row. All indices, once each; the same texts give the same order.
export function alikeTogether(matrix, n) {
  const near = Float64Array.from(matrix);
  const clusters = Array.from({ length: n }, (_, index) => [index]);
  const alive = new Set(clusters.keys());
  const chain = []; // each is the nearest of the one before; two that are each other's nearest are joined
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

// Of the four ways to lay two rows end to end, the one whose meeting ends are most alike.
function laid(a, b, cosine) {
  const ways = [[a, b], [a, [...b].reverse()], [[...a].reverse(), b], [[...a].reverse(), [...b].reverse()]];
  const best = ways.reduce((found, way) => (meeting(way, cosine) > meeting(found, cosine) + 1e-12 ? way : found));
  return best.flat();
}

const meeting = ([left, right], cosine) => cosine(left.at(-1), right[0]);
