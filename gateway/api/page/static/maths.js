// Cosines, nearest pairs, and a projection to a plane (principal components). All are deterministic.
const BLOCK = 8; // directions iterated together: the first two converge at the rate of the ninth eigenvalue over the second
const MAX_ROUNDS = 300;
const TOLERANCE = 1e-10; // relative change of the eigenvalues between two rounds

export const lengthOf = (vector) => Math.sqrt(dot(vector, vector));

function dot(a, b) {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i] * b[i];
  return sum;
}

// Returns the Gram matrix, row-major: all dot products. Cosines and the plane are computed from it.
export function products(vectors) {
  const n = vectors.length;
  const matrix = new Float64Array(n * n);
  for (let i = 0; i < n; i++) for (let j = 0; j <= i; j++) matrix[i * n + j] = matrix[j * n + i] = dot(vectors[i], vectors[j]);
  return matrix;
}

// Returns the matrix of cosines. A vector of length 0 has cosine 0 to all others.
export function cosines(products, n) {
  const lengths = Float64Array.from({ length: n }, (_, i) => Math.sqrt(products[i * n + i]) || 1);
  return products.map((product, at) => {
    const i = Math.floor(at / n), j = at % n;
    return i === j ? 1 : product / (lengths[i] * lengths[j]);
  });
}

export const cosine = (a, b) => dot(a, b) / (lengthOf(a) * lengthOf(b) || 1);

// Returns the pairs of different texts, nearest first.
export function nearestPairs(matrix, n, count) {
  const pairs = [];
  for (let i = 0; i < n; i++) {
    for (let j = i + 1; j < n; j++) pairs.push({ i, j, cosine: matrix[i * n + j] });
  }
  return pairs.sort((a, b) => b.cosine - a.cosine || a.i - b.i || a.j - b.j).slice(0, count);
}

export function neighbours(matrix, n, index, count) {
  return Array.from({ length: n }, (_, j) => j)
    .filter((j) => j !== index)
    .sort((a, b) => matrix[index * n + b] - matrix[index * n + a] || a - b)
    .slice(0, count);
}

// Returns the range of the colours: the least and the greatest cosine of different texts, rounded outwards to tenths.
export function rangeOf(matrix, n) {
  let low = 1, high = -1;
  for (let i = 0; i < n; i++) {
    for (let j = 0; j < i; j++) {
      low = Math.min(low, matrix[i * n + j]);
      high = Math.max(high, matrix[i * n + j]);
    }
  }
  if (low > high) return [0, 1];
  low = Math.max(-1, Math.floor(low * 10 + 1e-9) / 10);
  high = Math.min(1, Math.ceil(high * 10 - 1e-9) / 10);
  return high - low < 0.2 ? [Math.max(-1, high - 0.2), high] : [low, high];
}

// Principal components from the Gram matrix of the centred vectors, which is n * n for any number of dimensions.
// points[i] = [x, y]; shares = the part of the variance that each axis keeps.
export function plane(products, n) {
  const gram = centred(products, n);
  let total = 0;
  for (let i = 0; i < n; i++) total += gram[i * n + i];
  if (n < 2 || total < 1e-12) return { points: Array.from({ length: n }, () => [0, 0]), shares: [0, 0] };
  const { values, columns } = leadingEigen(gram, n, Math.min(n, BLOCK));
  const axes = [0, 1].map((k) => (k < values.length ? scaled(columns[k], Math.sqrt(Math.max(values[k], 0))) : new Float64Array(n)));
  return {
    points: Array.from({ length: n }, (_, i) => [axes[0][i], axes[1][i]]),
    shares: [0, 1].map((k) => (k < values.length ? Math.max(values[k], 0) / total : 0)),
  };
}

// An eigenvector's sign is arbitrary. So the entry farthest from zero is made positive: the same texts give the same picture.
function scaled(column, factor) {
  let far = 0;
  for (let i = 1; i < column.length; i++) if (Math.abs(column[i]) > Math.abs(column[far]) + 1e-9) far = i;
  const sign = column[far] < 0 ? -1 : 1;
  return column.map((value) => sign * factor * value);
}

// Returns the Gram matrix of the centred vectors, from that of the vectors.
function centred(products, n) {
  const means = Float64Array.from({ length: n }, (_, i) => {
    let sum = 0;
    for (let j = 0; j < n; j++) sum += products[i * n + j];
    return sum / n;
  });
  const mean = means.reduce((sum, value) => sum + value, 0) / n;
  return products.map((product, at) => product - means[Math.floor(at / n)] - means[at % n] + mean);
}

// Subspace iteration with a Rayleigh-Ritz step. Returns a symmetric matrix's `count` largest eigenvalues and unit eigenvectors.
function leadingEigen(matrix, n, count) {
  let columns = orthonormal(Array.from({ length: count }, (_, k) => Float64Array.from({ length: n }, (_, i) => start(i, k))));
  let values = [];
  for (let round = 0; round < MAX_ROUNDS; round++) {
    const images = columns.map((column) => times(matrix, column, n));
    const small = columns.map((a) => images.map((image) => dot(a, image)));
    const ritz = jacobi(small);
    columns = orthonormal(combined(images, ritz.columns));
    const settled = values.length && ritz.values.every((value, k) => k > 1 || Math.abs(value - values[k]) <= TOLERANCE * ritz.values[0]);
    values = ritz.values;
    if (settled || count === n && round > 1) break;
  }
  const images = columns.map((column) => times(matrix, column, n));
  const last = jacobi(columns.map((a) => images.map((image) => dot(a, image))));
  return { values: last.values, columns: combined(columns, last.columns) };
}

// Returns starting vectors that are the same every time and have no symmetry.
const start = (i, k) => Math.sin(1 + 12.9898 * (i + 1) + 78.233 * (k + 1) * (i + 1));

function times(matrix, column, n) {
  const out = new Float64Array(n);
  for (let i = 0, at = 0; i < n; i++) {
    let sum = 0;
    for (let j = 0; j < n; j++, at++) sum += matrix[at] * column[j];
    out[i] = sum;
  }
  return out;
}

const combined = (columns, weights) =>
  weights.map((weight) => {
    const out = new Float64Array(columns[0].length);
    columns.forEach((column, k) => { for (let i = 0; i < out.length; i++) out[i] += weight[k] * column[i]; });
    return out;
  });

// Gram-Schmidt, twice, which is enough. A column that depends on those before it is replaced by another unit vector.
function orthonormal(columns) {
  const done = [];
  for (const column of columns) {
    let found = reduced(column, done);
    for (let i = 0; lengthOf(found) < 1e-12 && i < column.length; i++) {
      found = reduced(Float64Array.from(column, (_, j) => (i === j ? 1 : 0)), done);
    }
    const length = lengthOf(found) || 1;
    done.push(found.map((value) => value / length));
  }
  return done;
}

function reduced(column, basis) {
  const before = lengthOf(column) || 1;
  const out = column.map((value) => value / before);
  for (let pass = 0; pass < 2; pass++) {
    for (const other of basis) {
      const along = dot(out, other);
      for (let i = 0; i < out.length; i++) out[i] -= along * other[i];
    }
  }
  return out;
}

// Jacobi rotations, for the small matrix. Returns all its eigenvalues, largest first, and their eigenvectors.
export function jacobi(symmetric) {
  const n = symmetric.length;
  const a = symmetric.map((row) => Float64Array.from(row));
  const v = Array.from({ length: n }, (_, i) => Float64Array.from({ length: n }, (_, j) => (i === j ? 1 : 0)));
  for (let sweep = 0; sweep < 60; sweep++) {
    let off = 0, on = 0;
    for (let p = 0; p < n; p++) for (let q = 0; q < n; q++) (p === q ? (on += a[p][q] ** 2) : (off += a[p][q] ** 2));
    if (off <= 1e-30 * on) break;
    for (let p = 0; p < n; p++) for (let q = p + 1; q < n; q++) rotate(a, v, p, q, n);
  }
  const order = Array.from({ length: n }, (_, k) => k).sort((p, q) => a[q][q] - a[p][p]);
  return { values: order.map((k) => a[k][k]), columns: order.map((k) => Float64Array.from(v, (row) => row[k])) };
}

function rotate(a, v, p, q, n) {
  if (Math.abs(a[p][q]) < 1e-300) return;
  const theta = (a[q][q] - a[p][p]) / (2 * a[p][q]);
  const t = (theta < 0 ? -1 : 1) / (Math.abs(theta) + Math.sqrt(theta * theta + 1));
  const c = 1 / Math.sqrt(t * t + 1), s = t * c;
  for (let k = 0; k < n; k++) [a[k][p], a[k][q]] = [c * a[k][p] - s * a[k][q], s * a[k][p] + c * a[k][q]];
  for (let k = 0; k < n; k++) [a[p][k], a[q][k]] = [c * a[p][k] - s * a[q][k], s * a[p][k] + c * a[q][k]];
  for (let k = 0; k < n; k++) [v[k][p], v[k][q]] = [c * v[k][p] - s * v[k][q], s * v[k][p] + c * v[k][q]];
}
