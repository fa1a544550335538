// Computes y = F^-1 (t F x) and its gradients on a CPU, one plane (one channel of one image)
// after the other. F is the real 2D FFT, t a real even transfer function.
//
// Cache: a plane stays in a core's cache from the reading of x to the writing of y.
//
// Vectors: every operation works on whole vectors. While the transform runs along the height,
// a vector holds neighbouring columns. While it runs along the width, a vector holds
// neighbouring wave numbers of the height. In between, the plane is transposed in squares.
//
// Real input: two vectors of columns, L and R, share one complex transform of z = L + i R.
// Their spectra follow from 2 L(k) = z(k) + conj z(-k) and 2 i R(k) = z(k) - conj z(-k).
//
// Slots: only the wave numbers 0 <= k < H / 2 of the height are kept; each fills one "slot",
// a line along the width. The waves of k = 0 and k = H / 2 are real along the width, so they
// share the first slot as Z = X(0) + i X(H / 2). The product with t maps Z(k) to
// a Z(k) + b conj Z(-k), with a and b = (t(0) +- t(H / 2)) / 2 and k along the width.
//
// Order: the forward transform decimates in frequency, the inverse one in time, both in place.
// Spectra are in digit-reversed order, and nothing has to be sorted. A prime factor p > 7 of
// a side costs p operations per pixel.
//
// Shapes: images (batch, channels, H, W); t and its gradient (channels, H, W / 2 + 1), in the
// layout of rfft2. Entries of t that are equal because t is even are read once, at the smaller
// wave number of the height, and the gradient of both is written there.

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <new>
#include <type_traits>
#include <vector>

#include <omp.h>

namespace {

#if defined(__AVX512F__)
constexpr int BYTES = 64;
#elif defined(__AVX2__)
constexpr int BYTES = 32;
#else
constexpr int BYTES = 16;
#endif

constexpr int64_t LARGE = 4 << 20;  // bytes, more than a core's L2 cache

constexpr double PI = 3.14159265358979323846;

template <typename Real>
constexpr int LANES = BYTES / sizeof(Real);

template <typename Real>
using Vec __attribute__((vector_size(BYTES))) = Real;

// One complex number per lane. Copied member by member, which keeps it in registers.
template <typename Real>
struct Wave {
  Vec<Real> re, im;
  Wave() : re{}, im{} {}
  Wave(Vec<Real> re, Vec<Real> im) : re(re), im(im) {}
  Wave(const Wave &z) : re(z.re), im(z.im) {}
  Wave &operator=(const Wave &z) {
    re = z.re, im = z.im;
    return *this;
  }
  Wave operator+(const Wave &z) const { return {re + z.re, im + z.im}; }
  Wave operator-(const Wave &z) const { return {re - z.re, im - z.im}; }
};

template <typename Real>
Wave<Real> operator*(Real c, const Wave<Real> &z) {
  return {c * z.re, c * z.im};
}

// Returns z times -i, or times i in the inverse transform (`back`).
template <bool back, typename Real>
Wave<Real> turned(const Wave<Real> &z) {
  return back ? Wave<Real>{-z.im, z.re} : Wave<Real>{z.im, -z.re};
}

// A complex number for all lanes: a twiddle factor.
template <typename Real>
struct Factor {
  Real re, im;
};

// One real number per lane: part of the transfer function.
template <typename Real>
struct Symbol {
  Vec<Real> v = {};
};

template <bool back, typename Real>
Wave<Real> times(const Wave<Real> &z, Factor<Real> w) {
  const Real im = back ? -w.im : w.im;
  return {z.re * w.re - z.im * im, z.im * w.re + z.re * im};
}

// Sets z_j <- sum_l z_l exp(-+ 2 pi i j l / r), the transform of r numbers.
template <int r, bool back, typename Real>
inline __attribute__((always_inline)) void butterfly(Wave<Real> *z) {
  if constexpr (r == 2) {
    const Wave<Real> a = z[0], b = z[1];
    z[0] = a + b, z[1] = a - b;
  } else if constexpr (r == 4) {
    const Wave<Real> a = z[0] + z[2], b = z[0] - z[2];
    const Wave<Real> c = z[1] + z[3], d = turned<back>(z[1] - z[3]);
    z[0] = a + c, z[1] = b + d, z[2] = a - c, z[3] = b - d;
  } else if constexpr (r == 8) {
    Wave<Real> even[4] = {z[0], z[2], z[4], z[6]}, odd[4] = {z[1], z[3], z[5], z[7]};
    butterfly<4, back>(even);
    butterfly<4, back>(odd);
    const Real root = std::sqrt(Real(0.5));
    odd[1] = root * (odd[1] + turned<back>(odd[1]));
    odd[2] = turned<back>(odd[2]);
    odd[3] = root * (turned<back>(odd[3]) - odd[3]);
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) z[j] = even[j] + odd[j], z[j + 4] = even[j] - odd[j];
  } else {  // odd: cosines of the sums, sines of the differences
    constexpr int half = r / 2;
    Wave<Real> sums[half], differences[half], total = z[0];
#pragma GCC unroll 8
    for (int l = 1; l <= half; l++) {
      sums[l - 1] = z[l] + z[r - l];
      differences[l - 1] = turned<back>(z[l] - z[r - l]);
      total = total + sums[l - 1];
    }
#pragma GCC unroll 8
    for (int j = 1; j <= half; j++) {
      Wave<Real> u = z[0], v = {Vec<Real>{}, Vec<Real>{}};
#pragma GCC unroll 8
      for (int l = 1; l <= half; l++) {
        const double angle = 2 * PI * (j * l % r) / r;
        u = u + Real(std::cos(angle)) * sums[l - 1];
        v = v + Real(std::sin(angle)) * differences[l - 1];
      }
      z[j] = u + v, z[r - j] = u - v;
    }
    z[0] = total;
  }
}

// Applies one radix r to all blocks of r m numbers; `w` are the twiddle factors.
template <int r, bool back, typename Real>
void pass(Wave<Real> *a, int n, int m, const Factor<Real> *w) {
  for (Wave<Real> *block = a; block < a + n; block += r * m)
    for (int k = 0; k < m; k++) {
      const Factor<Real> *f = w + k * (r - 1) - 1;
      Wave<Real> z[r];
#pragma GCC unroll 8
      for (int j = 0; j < r; j++) z[j] = block[k + j * m];
      if (back && m > 1) {
#pragma GCC unroll 8
        for (int j = 1; j < r; j++) z[j] = times<back>(z[j], f[j]);
      }
      butterfly<r, back>(z);
      if (!back && m > 1) {
#pragma GCC unroll 8
        for (int j = 1; j < r; j++) z[j] = times<back>(z[j], f[j]);
      }
#pragma GCC unroll 8
      for (int j = 0; j < r; j++) block[k + j * m] = z[j];
    }
}

// Applies any odd radix r; `roots` are exp(2 pi i j / r), `z` is scratch space of r waves.
template <bool back, typename Real>
void pass(int r, Wave<Real> *a, int n, int m, const Factor<Real> *w,
          const Factor<Real> *roots, Wave<Real> *z) {
  const int half = r / 2;
  for (Wave<Real> *block = a; block < a + n; block += r * m)
    for (int k = 0; k < m; k++) {
      const Factor<Real> *f = w + k * (r - 1) - 1;
      const auto turn = [&](int j, const Wave<Real> &v) {
        return j > 0 && m > 1 ? times<back>(v, f[j]) : v;
      };
      Wave<Real> total = z[0] = block[k];
      for (int l = 1; l <= half; l++) {  // z holds sums first, then differences
        Wave<Real> p = block[k + l * m], q = block[k + (r - l) * m];
        if (back) p = turn(l, p), q = turn(r - l, q);
        z[l] = p + q;
        z[half + l] = turned<back>(p - q);
        total = total + z[l];
      }
      block[k] = total;
      for (int j = 1; j <= half; j++) {
        Wave<Real> u = z[0], v;
        for (int l = 1, at = j; l <= half; l++) {
          u = u + roots[at].re * z[l];
          v = v + roots[at].im * z[half + l];
          at += at + j < r ? j : j - r;
        }
        block[k + j * m] = back ? u + v : turn(j, u + v);
        block[k + (r - j) * m] = back ? u - v : turn(r - j, u - v);
      }
    }
}

// The in-place transform of n complex numbers per lane. `room` is scratch space of n waves.
template <typename Real>
class Fft {
 public:
  std::vector<int> place;  // index of the wave number k in the spectrum

  explicit Fft(int n) : place(n), n_(n) {
    for (int rest = n; rest > 1; rest = passes_.back().m) {
      int r = 8;
      while (rest % r != 0 || r == 6 || (r == 8 && rest == 16)) r--;  // 16 = 4 x 4
      if (r == 1)
        for (r = 11; rest % r != 0;) r += 2;
      const int m = rest / r;
      passes_.push_back({r, m, int(factors_.size()), int(roots_.size())});
      for (int j = 0; r > 8 && j < r; j++) {
        const double angle = 2 * PI * j / r;
        roots_.push_back({Real(std::cos(angle)), Real(std::sin(angle))});
      }
      for (int k = 0; k < m; k++)
        for (int j = 1; j < r; j++) {
          const double angle = -2 * PI * (int64_t(j) * k % rest) / rest;
          factors_.push_back({Real(std::cos(angle)), Real(std::sin(angle))});
        }
    }
    for (int at = 0; at < n; at++) {
      int k = 0, unit = 1, rest = at;
      for (const Pass &p : passes_) {
        k += unit * (rest / p.m);
        rest %= p.m;
        unit *= p.r;
      }
      place[k] = at;
    }
  }

  template <bool back>
  void run(Wave<Real> *a, Wave<Real> *room) const {
    const int count = int(passes_.size());
    for (int i = 0; i < count; i++) {
      const Pass &p = passes_[back ? count - 1 - i : i];
      const Factor<Real> *w = factors_.data() + p.first;
      switch (p.r) {
        case 2: pass<2, back>(a, n_, p.m, w); break;
        case 3: pass<3, back>(a, n_, p.m, w); break;
        case 4: pass<4, back>(a, n_, p.m, w); break;
        case 5: pass<5, back>(a, n_, p.m, w); break;
        case 7: pass<7, back>(a, n_, p.m, w); break;
        case 8: pass<8, back>(a, n_, p.m, w); break;
        default: pass<back>(p.r, a, n_, p.m, w, roots_.data() + p.roots, room);
      }
    }
  }

 private:
  struct Pass {
    int r, m, first, roots;
  };
  int n_;
  std::vector<Pass> passes_;
  std::vector<Factor<Real>> factors_, roots_;
};

// Transposes a square of LANES vectors: swaps blocks of 1 x 1, then of 2 x 2, and so on.
template <typename Real, int step = 1>
inline __attribute__((always_inline)) void transpose(Vec<Real> *v) {
  constexpr int lanes = LANES<Real>;
  if constexpr (step < lanes) {
    using Index = std::conditional_t<sizeof(Real) == 4, int32_t, int64_t>;
    Vec<Index> low, high;
    for (int i = 0; i < lanes; i++) {
      low[i] = i & step ? lanes + i - step : i;
      high[i] = i & step ? lanes + i : i + step;
    }
#pragma GCC unroll 16
    for (int i = 0; i < lanes; i++)
      if (!(i & step)) {
        const Vec<Real> a = v[i], b = v[i + step];
        v[i] = __builtin_shuffle(a, b, low);
        v[i + step] = __builtin_shuffle(a, b, high);
      }
    transpose<Real, 2 * step>(v);
  }
}

// Loads a vector from a line of numbers; lanes beyond the end of the line are zero.
template <typename Real>
Vec<Real> load(const Real *line, int at, int end) {
  Vec<Real> v = {};
  if (at + LANES<Real> <= end)
    std::memcpy(&v, line + at, BYTES);
  else if (at < end)
    std::memcpy(&v, line + at, (end - at) * sizeof(Real));
  return v;
}

// Stores the lanes of a vector that lie before the end of the line.
template <typename Real>
void store(Real *line, int at, int end, Vec<Real> v) {
  if (at + LANES<Real> <= end)
    std::memcpy(line + at, &v, BYTES);
  else if (at < end)
    std::memcpy(line + at, &v, (end - at) * sizeof(Real));
}

// Stores to memory without filling the caches; `line` must be aligned to vectors. Other
// threads see the values after `flush`.
template <typename Real>
void stream(Real *line, Vec<Real> v) {
#if defined(__AVX512F__)
  _mm512_stream_si512(reinterpret_cast<__m512i *>(line), reinterpret_cast<__m512i>(v));
#elif defined(__AVX2__)
  _mm256_stream_si256(reinterpret_cast<__m256i *>(line), reinterpret_cast<__m256i>(v));
#else
  std::memcpy(line, &v, BYTES);
#endif
}

void flush() {
#if defined(__AVX2__)
  _mm_sfence();
#endif
}

// The real 2D transform of one plane, its product with t, and the gradient of t.
template <typename Real>
class Plane {
 public:
  static constexpr int lanes = LANES<Real>;
  const int H, W;
  const int groups;  // vectors of slots
  const int line;    // W, rounded up to two vectors of columns

  Plane(int H, int W)
      : H(H),
        W(W),
        groups((slots_of(H) + lanes - 1) / lanes),
        line((W + 2 * lanes - 1) / (2 * lanes) * 2 * lanes),
        along_height_(H),
        along_width_(W),
        plus_(groups * lanes, H),
        minus_(groups * lanes, H),
        mirror_(W) {
    // Slots beyond the last one read the zero that follows the columns (index H).
    for (int k = 1; k < slots_of(H); k++) {
      plus_[k] = along_height_.place[k];
      minus_[k] = along_height_.place[H - k];
    }
    for (int k = 0; k < W; k++) mirror_[place(k)] = place((W - k) % W);
  }

  size_t size() const { return size_t(groups) * line; }

  // Transforms x along the height to 2 X in slots. `columns` is scratch space of H + 1 waves.
  void in(const Real *x, Wave<Real> *X, Wave<Real> *columns, Wave<Real> *room) const {
    const Vec<Real> none = {};
    for (int left = 0; left < W; left += 2 * lanes) {
      for (int i = 0; i < H; i++)
        columns[i] = {load<Real>(x + size_t(i) * W, left, W),
                      load<Real>(x + size_t(i) * W, left + lanes, W)};
      columns[H] = {none, none};
      along_height_.template run<false>(columns, room);
      const Wave<Real> zero = columns[along_height_.place[0]];
      const Wave<Real> last = H % 2 ? columns[H] : columns[along_height_.place[H / 2]];
      for (int group = 0; group < groups; group++) {
        const int *plus = &plus_[group * lanes], *minus = &minus_[group * lanes];
        Wave<Real> *L = X + size_t(group) * line + left, *R = L + lanes;
        const auto put = [&](Wave<Real> *to, Vec<Real> Wave<Real>::*part, Vec<Real> first,
                             auto value) {
          Vec<Real> v[lanes];
          for (int i = 0; i < lanes; i++) v[i] = value(columns[plus[i]], columns[minus[i]]);
          if (group == 0) v[0] = first + first;
          transpose<Real>(v);
          for (int i = 0; i < lanes; i++) to[i].*part = v[i];
        };
        using Z = const Wave<Real> &;
        put(L, &Wave<Real>::re, zero.re, [](Z a, Z b) { return a.re + b.re; });
        put(L, &Wave<Real>::im, last.re, [](Z a, Z b) { return a.im - b.im; });
        put(R, &Wave<Real>::re, zero.im, [](Z a, Z b) { return a.im + b.im; });
        put(R, &Wave<Real>::im, last.im, [](Z a, Z b) { return b.re - a.re; });
      }
    }
  }

  // Transforms slots back along the height to y.
  void out(const Wave<Real> *X, Real *y, Wave<Real> *columns, Wave<Real> *room,
           bool past_caches) const {
    for (int left = 0; left < W; left += 2 * lanes) {
      for (int group = 0; group < groups; group++) {
        const Wave<Real> *from = X + size_t(group) * line + left;
        Vec<Real> re[2][lanes], im[2][lanes];
        for (int side = 0; side < 2; side++) {
          for (int i = 0; i < lanes; i++) re[side][i] = from[side * lanes + i].re;
          transpose<Real>(re[side]);
          for (int i = 0; i < lanes; i++) im[side][i] = from[side * lanes + i].im;
          transpose<Real>(im[side]);
        }
        const int first = group * lanes;
        for (int i = 0; i < lanes; i++) {
          columns[plus_[first + i]] = {re[0][i] - im[1][i], im[0][i] + re[1][i]};
          columns[minus_[first + i]] = {re[0][i] + im[1][i], re[1][i] - im[0][i]};
        }
        if (group == 0) {
          columns[along_height_.place[0]] = {re[0][0], re[1][0]};
          if (H % 2 == 0) columns[along_height_.place[H / 2]] = {im[0][0], im[1][0]};
        }
      }
      if (!past_caches)
        for (int i = 0; i < H; i++) {  // the lines of y arrive during the transform
          __builtin_prefetch(y + size_t(i) * W + left, 1);
          __builtin_prefetch(y + size_t(i) * W + left + lanes, 1);
        }
      along_height_.template run<true>(columns, room);
      for (int i = 0; i < H; i++) {
        Real *row = y + size_t(i) * W;
        if (past_caches) {
          stream<Real>(row + left, columns[i].re);
          if (left + lanes < W) stream<Real>(row + left + lanes, columns[i].im);
        } else {
          store<Real>(row, left, W, columns[i].re);
          store<Real>(row, left + lanes, W, columns[i].im);
        }
      }
    }
  }

  template <bool back>
  void along_width(Wave<Real> *X, int group, Wave<Real> *room) const {
    along_width_.template run<back>(X + size_t(group) * line, room);
  }

  // Sorts the transfer function into the order of spectra, t (groups, line), and the b of the
  // first slot.
  void spread(const Real *symbol, Symbol<Real> *t, Real *b) const {
    const int wide = W / 2 + 1;
    const Real scale = Real(0.5) / H / W;
    for (int group = 0; group < groups; group++)
      for (int c = 0; c < wide; c += lanes) {
        Vec<Real> v[lanes], u[lanes];
        for (int i = 0; i < lanes; i++) {
          const int k = group * lanes + i < slots_of(H) ? group * lanes + i : 0;
          v[i] = scale * load<Real>(symbol + size_t(k) * wide, c, wide);
          u[i] = scale * load<Real>(symbol + size_t(k ? H - k : 0) * wide, c, wide);
        }
        transpose<Real>(v);
        transpose<Real>(u);
        Symbol<Real> *to = t + size_t(group) * line;
        for (int i = 0; i < lanes && c + i < wide; i++) {
          to[place(c + i)].v = v[i];
          if (c + i > 0 && 2 * (c + i) < W) to[place(W - c - i)].v = u[i];
        }
      }
    for (int k = 0; k < W; k++) {
      const int c = std::min(k, W - k);
      const Real zero = scale * symbol[c];
      const Real last = H % 2 ? zero : scale * symbol[size_t(H / 2) * wide + c];
      t[place(k)].v[0] = (zero + last) / 2;
      b[place(k)] = (zero - last) / 2;
    }
  }

  // Sets X <- t X in a group of slots. `kept` is scratch space of W numbers.
  void multiply(Wave<Real> *X, int group, const Symbol<Real> *t, const Real *b,
                Factor<Real> *kept) const {
    Wave<Real> *z = X + size_t(group) * line;
    t += size_t(group) * line;
    if (group == 0)
      for (int p = 0; p < W; p++) {
        const Wave<Real> &other = z[mirror_[p]];
        kept[p] = {b[p] * other.re[0], -b[p] * other.im[0]};
      }
    // Up to `line`, beyond W: there t is 0 and clears rounding errors of absent columns.
    for (int p = 0; p < line; p++) z[p] = {z[p].re * t[p].v, z[p].im * t[p].v};
    if (group == 0)
      for (int p = 0; p < W; p++) {
        z[p].re[0] += kept[p].re;
        z[p].im[0] += kept[p].im;
      }
  }

  // Adds the gradients of <G, t X> in t and b, up to a constant factor.
  void cross(const Wave<Real> *X, const Wave<Real> *G, int group, Symbol<Real> *dt,
             Real *db) const {
    const Wave<Real> *x = X + size_t(group) * line, *g = G + size_t(group) * line;
    dt += size_t(group) * line;
    for (int p = 0; p < W; p++) dt[p].v += x[p].re * g[p].re + x[p].im * g[p].im;
    if (group == 0)
      for (int p = 0; p < W; p++) {
        const Wave<Real> &other = x[mirror_[p]];
        db[p] += other.re[0] * g[p].re[0] - other.im[0] * g[p].im[0];
      }
  }

  // Writes the gradient in the layout of rfft2: the adjoint of `spread`.
  void gather(const Symbol<Real> *dt, const Real *db, Real *grad) const {
    const int wide = W / 2 + 1;
    const Real scale = Real(0.5) / H / W;  // X and G both hold twice the spectrum
    for (int group = 0; group < groups; group++)
      for (int c = 0; c < wide; c += lanes) {
        const Symbol<Real> *from = dt + size_t(group) * line;
        Vec<Real> v[lanes] = {}, u[lanes] = {};
        for (int i = 0; i < lanes && c + i < wide; i++) {
          v[i] = scale * from[place(c + i)].v;
          if (c + i > 0 && 2 * (c + i) < W) u[i] = scale * from[place(W - c - i)].v;
        }
        transpose<Real>(v);
        transpose<Real>(u);
        for (int i = 0; i < lanes; i++) {
          const int k = group * lanes + i;
          if (k == 0 || k >= slots_of(H)) continue;
          store<Real>(grad + size_t(k) * wide, c, wide, v[i]);
          store<Real>(grad + size_t(H - k) * wide, c, wide, u[i]);
        }
      }
    Real *zero = grad, *last = grad + size_t(H / 2) * wide;
    std::fill_n(zero, wide, Real(0));
    if (H % 2 == 0) std::fill_n(last, wide, Real(0));
    for (int k = 0; k < W; k++) {
      const int c = std::min(k, W - k);
      // a and b halve t, and these lines have no conjugate line: a quarter of the weight.
      const Real a = scale / 4 * dt[place(k)].v[0], b = scale / 4 * db[place(k)];
      zero[c] += H % 2 ? 2 * a : a + b;
      if (H % 2 == 0) last[c] += a - b;
    }
  }

 private:
  static int slots_of(int H) { return (H + 1) / 2; }
  int place(int k) const { return along_width_.place[k]; }

  Fft<Real> along_height_, along_width_;
  std::vector<int> plus_, minus_;  // indices of k and -k along the height
  std::vector<int> mirror_;        // index of -k along the width, by the index of k
};

// Scratch space of a thread: a spectrum, with a transfer function or its gradient.
template <typename Real>
struct Spectrum {
  std::vector<Wave<Real>> X;
  std::vector<Symbol<Real>> t;
  std::vector<Real> b;
  explicit Spectrum(const Plane<Real> &plane)
      : X(plane.size()), t(plane.size()), b(plane.W) {}
};

// Scratch space of a thread for the lines of a transform.
template <typename Real>
struct Lines {
  std::vector<Wave<Real>> columns, room;
  std::vector<Factor<Real>> kept;
  explicit Lines(const Plane<Real> &plane)
      : columns(plane.H + 1), room(std::max(plane.H, plane.W)), kept(plane.W) {}
};

// Tells if y is too large for the caches. Since y is not read again, it would only evict x.
template <typename Real>
bool goes_past_caches(const Real *y, int64_t numbers, int W) {
  const bool aligned = W % LANES<Real> == 0 && reinterpret_cast<uintptr_t>(y) % BYTES == 0;
  return aligned && numbers * int64_t(sizeof(Real)) > LARGE;
}

// Returns the parts that a batch is cut into, so that channels x parts occupy all threads.
int64_t parts(int64_t batch, int64_t channels, int64_t threads) {
  return std::max<int64_t>(1, std::min(batch, (threads + channels - 1) / channels));
}

template <typename Real>
void product(const Real *x, const Real *symbol, Real *y, int64_t batch, int64_t channels,
             int H, int W, int threads) {
  const Plane<Real> plane(H, W);
  const int64_t area = int64_t(H) * W, wave = int64_t(H) * (W / 2 + 1);
  const int64_t chunks = parts(batch, channels, threads);
  const bool past_caches = goes_past_caches(y, batch * channels * area, W);
  std::vector<Spectrum<Real>> spectra(threads, Spectrum<Real>(plane));
  std::vector<Lines<Real>> lines(threads, Lines<Real>(plane));
#pragma omp parallel num_threads(threads)
  {
    auto &[X, t, b] = spectra[omp_get_thread_num()];
    auto &[columns, room, kept] = lines[omp_get_thread_num()];
#pragma omp for collapse(2)
    for (int64_t c = 0; c < channels; c++)
      for (int64_t part = 0; part < chunks; part++) {
        plane.spread(symbol + c * wave, t.data(), b.data());
        for (int64_t i = part * batch / chunks; i < (part + 1) * batch / chunks; i++) {
          const int64_t at = (i * channels + c) * area;
          plane.in(x + at, X.data(), columns.data(), room.data());
          for (int group = 0; group < plane.groups; group++) {
            plane.template along_width<false>(X.data(), group, room.data());
            plane.multiply(X.data(), group, t.data(), b.data(), kept.data());
            plane.template along_width<true>(X.data(), group, room.data());
          }
          plane.out(X.data(), y + at, columns.data(), room.data(), past_caches);
        }
      }
    flush();
  }
}

template <typename Real>
void gradients(const Real *g, const Real *x, const Real *symbol, Real *grad_x, Real *grad_t,
               int64_t batch, int64_t channels, int H, int W, int threads) {
  const Plane<Real> plane(H, W);
  const int64_t area = int64_t(H) * W, wave = int64_t(H) * (W / 2 + 1);
  const int64_t chunks = parts(batch, channels, threads);
  const bool past_caches = goes_past_caches(grad_x, batch * channels * area, W);
  std::vector<Spectrum<Real>> of_x(threads, Spectrum<Real>(plane)), of_g = of_x;
  std::vector<Lines<Real>> lines(threads, Lines<Real>(plane));
#pragma omp parallel num_threads(threads)
  {
    auto &[X, dt, db] = of_x[omp_get_thread_num()];
    auto &[G, t, b] = of_g[omp_get_thread_num()];
    auto &[columns, room, kept] = lines[omp_get_thread_num()];
#pragma omp for collapse(2)
    for (int64_t c = 0; c < channels; c++)
      for (int64_t part = 0; part < chunks; part++) {
        plane.spread(symbol + c * wave, t.data(), b.data());
        std::fill(dt.begin(), dt.end(), Symbol<Real>{});
        std::fill(db.begin(), db.end(), Real(0));
        for (int64_t i = part * batch / chunks; i < (part + 1) * batch / chunks; i++) {
          const int64_t at = (i * channels + c) * area;
          plane.in(x + at, X.data(), columns.data(), room.data());
          plane.in(g + at, G.data(), columns.data(), room.data());
          for (int group = 0; group < plane.groups; group++) {
            plane.template along_width<false>(X.data(), group, room.data());
            plane.template along_width<false>(G.data(), group, room.data());
            plane.cross(X.data(), G.data(), group, dt.data(), db.data());
            plane.multiply(G.data(), group, t.data(), b.data(), kept.data());
            plane.template along_width<true>(G.data(), group, room.data());
          }
          plane.out(G.data(), grad_x + at, columns.data(), room.data(), past_caches);
        }
        plane.gather(dt.data(), db.data(), grad_t + (part * channels + c) * wave);
      }
    flush();
  }
}

// Runs `work`; returns false if memory ran out.
template <typename Work>
bool done(Work work) {
  try {
    work();
    return true;
  } catch (const std::bad_alloc &) {
    return false;
  }
}

}  // namespace

// grad_t is (chunks, channels, H, W / 2 + 1); the caller sums it over the chunks.
#define KERNELS(Real, suffix)                                                              \
  bool product_##suffix(const Real *x, const Real *t, Real *y, int64_t batch,              \
                        int64_t channels, int H, int W, int threads) {                     \
    return done([=] { product(x, t, y, batch, channels, H, W, threads); });                \
  }                                                                                        \
  bool gradients_##suffix(const Real *g, const Real *x, const Real *t, Real *grad_x,       \
                          Real *grad_t, int64_t batch, int64_t channels, int H, int W,     \
                          int threads) {                                                   \
    return done(                                                                           \
        [=] { gradients(g, x, t, grad_x, grad_t, batch, channels, H, W, threads); });      \
  }

extern "C" {
KERNELS(float, float32)
KERNELS(double, float64)
int64_t chunks(int64_t batch, int64_t channels, int threads) {
  return parts(batch, channels, threads);
}
}
