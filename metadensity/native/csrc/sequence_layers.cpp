// Layers in one dimension, dilated, one after another, forward and backward, for a range of sequences:
// GatedLayer.forward in nn/causal.py, and multiplicative units, MultiplicativeBlock in nn/residual.py.
//
// Sequences are float32 with the features of a place after one another (channels last). Each goes through all layers
// before the next one does, so that it and its sum of skip outputs, or their gradients, stay in the second cache; and
// through a layer some places at a time, in the first. What a layer is given is copied as a whole before, so that its
// output, its skip outputs and its gradient may take the place of what they come from.
//
// A tap of the kernel is a product of the places that it looks at, which lie as far before as it reaches; before the
// first place lie zeros. Pre-activations of gates are ordered by half vectors: a, their b, and so on, with zeros up to
// a multiple of half a vector of planes; those of multiplicative units by vectors: three gates, their update, and so
// on. Each thread adds up its own gradients of weights, and ``finish`` adds those of the threads in order: for a number
// of threads the result is the same each time.

#include <vector>

#include "common/layout.h"
#include "common/products.h"

struct Layer {  // _Layer in native/sequence_layers.py, in the same order
    int64_t batch, tasks, places, inputs, planes, skip, reads, taps, dilation, shift, residual, multiplicative, threads,
        amx;
    // Weights, contiguous. conv: (pre-activations, inputs, taps); of multiplicative units, which have no outputs,
    // (pre-activations, taps, inputs).
    const float *conv, *from_attention, *out, *out_bias;
    const float* bias;  // (tasks, parts * planes)
    const float *x, *attended, *skip_sum;  // skip_sum: null, or what the skip outputs are added to
    float *new_x, *skips, *saved;  // saved: for the gradient, or null
    // Of the gradient only. Null: that gradient is zero, or not asked for.
    const float *grad_new_x, *grad_skips;
    float *grad_x, *grad_attended, *grad_bias;  // grad_attended: added to; grad_bias: (batch, parts * planes)
    float *grad_conv, *grad_from_attention, *grad_out, *grad_out_bias;
    float *packed, *sums;  // weights as used, bfloat16 with ``amx``; their gradients, a thread each, zero at first

    int64_t pre() const { return (multiplicative ? 4 : 2) * planes; }  // pre-activations
    // Where one of them lies.
    int64_t index(int64_t c) const {
        if (!multiplicative) return packed_index(c, planes);
        const int64_t own = c % planes;
        return (own / WIDTH * 4 + c / planes) * WIDTH + own % WIDTH;
    }
    // How far before its own place a tap looks.
    int64_t back(int64_t tap) const { return shift + (taps - 1 - tap) * dilation; }
};

#define LAYER_FIELDS(F, T)                                                                                             \
    F(T, batch) F(T, tasks) F(T, places) F(T, inputs) F(T, planes) F(T, skip) F(T, reads) F(T, taps) F(T, dilation)    \
    F(T, shift) F(T, residual) F(T, multiplicative) F(T, threads) F(T, amx) F(T, conv) F(T, from_attention)            \
    F(T, out) F(T, out_bias)                                                                                           \
    F(T, bias) F(T, x) F(T, attended) F(T, skip_sum) F(T, new_x) F(T, skips) F(T, saved) F(T, grad_new_x)              \
    F(T, grad_skips) F(T, grad_x) F(T, grad_attended) F(T, grad_bias) F(T, grad_conv) F(T, grad_from_attention)        \
    F(T, grad_out) F(T, grad_out_bias) F(T, packed) F(T, sums)

LAYOUT(sequence_layers, Layer, LAYER_FIELDS)

constexpr int64_t BLOCK = 128;  // places that are taken together, a multiple of the rows and the depth of tiles

constexpr int64_t TOGETHER = 32;  // a multiple of the rows of tiles, up to which they are read

// Sizes that follow, and where the packed weights and the sums of their gradients lie.
template <class M>
struct Plan {
    int64_t z, gates, outputs, reach, room, saved;
    std::vector<int64_t> taps;  // those that look at any place
    std::vector<Matrix> forth, back, sum;  // of the taps, and then of what is read and of the outputs
    int64_t read, out, packed = 0, out_bias, sums = 0;

    explicit Plan(const Layer& l) {
        gates = l.multiplicative ? padded(l.planes) : (l.planes + HALF - 1) / HALF * HALF;
        z = (l.multiplicative ? 4 : 2) * gates, outputs = l.multiplicative ? gates : padded(l.planes + l.skip);
        reach = 0;
        for (int64_t tap = 0; tap < l.taps; tap++)
            if (l.back(tap) < l.places) taps.push_back(tap), reach = std::max(reach, l.back(tap));
        room = (l.places + TOGETHER - 1) / TOGETHER * TOGETHER;
        saved = M::floats(l.places * z);
        for (size_t i = 0; i < taps.size(); i++) take(l.inputs, z);
        read = forth.size(), take(l.reads, z);
        out = forth.size(), take(l.multiplicative ? 0 : gates, outputs);
        out_bias = sums, sums += outputs;
    }
    // ``call(own, row, column)`` for the weights of a matrix, each number ``own`` of the tensor it is part of.
    template <class F>
    void each_weight(const Layer& l, size_t which, const F& call) const {
        const bool is_out = which == (size_t)out, is_tap = which < taps.size();
        const int64_t outputs = is_out ? l.planes + l.skip : l.pre();
        const int64_t inputs = is_out ? l.planes : is_tap ? l.inputs : l.reads;
        const int64_t step = is_tap && !l.multiplicative ? l.taps : 1, size = is_tap ? l.taps * inputs : inputs;
        const int64_t first = is_tap ? taps[which] * (l.multiplicative ? inputs : 1) : 0;
        for (int64_t o = 0; o < outputs; o++) {
            const int64_t column = is_out ? o : l.index(o), own = o * size + first;
            for (int64_t c = 0; c < inputs; c++) call(own + c * step, c, column);
        }
    }
    // Of three tensors the one that a matrix is part of; null where there is none.
    template <class T>
    T* of(size_t which, T* conv, T* from_attention, T* outputs) const {
        return which < taps.size() ? conv : which == (size_t)out ? outputs : from_attention;
    }

   private:
    void take(int64_t rows, int64_t columns) {
        forth.push_back({packed, rows, columns}), packed += M::size(forth.back());
        back.push_back({packed, columns, padded(rows)}), packed += M::size(back.back());
        sum.push_back({sums, rows, columns}), sums += padded(rows) * columns;
    }
};

template <class M>
void pack(const Layer& l) {
    const Plan<M> p(l);
    for (size_t which = 0; which < p.forth.size(); which++) {
        const float* weights = p.of(which, l.conv, l.from_attention, l.out);
        if (!weights) continue;
        const Matrix &forth = p.forth[which], &back = p.back[which];
        std::vector<float> own(forth.rows * forth.columns), turned(back.rows * back.columns);
        p.each_weight(l, which, [&](int64_t from, int64_t row, int64_t column) {
            own[row * forth.columns + column] = turned[column * back.columns + row] = weights[from];
        });
        M::pack(own.data(), forth, l.packed), M::pack(turned.data(), back, l.packed);
    }
}

template <class M>
void finish(const Layer& l) {
    const Plan<M> p(l);
    for (int64_t thread = 1; thread < l.threads; thread++)
        for (int64_t i = 0; i < p.sums; i++) l.sums[i] += l.sums[thread * p.sums + i];
    std::memset(l.grad_conv, 0, l.pre() * l.inputs * l.taps * sizeof(float));
    for (size_t which = 0; which < p.sum.size(); which++) {
        float* gradient = p.of(which, l.grad_conv, l.grad_from_attention, l.grad_out);
        if (!gradient) continue;
        const float* sums = l.sums + p.sum[which].at;
        const int64_t columns = p.sum[which].columns;
        p.each_weight(l, which, [&](int64_t to, int64_t row, int64_t column) {
            gradient[to] = sums[row * columns + column];
        });
    }
    if (l.out) std::copy(l.sums + p.out_bias, l.sums + p.out_bias + l.planes + l.skip, l.grad_out_bias);
}

// What both directions need of the numbers on the way.
template <class M>
struct Buffers {
    typedef typename M::Number Number;
    const Layer& l;
    const Plan<M> p;
    Scratch& scratch;
    Number* x;  // with ``reach`` places of zeros before the first

    Buffers(Scratch& scratch, const Layer& l) : l(l), p(l), scratch(scratch), x(numbers(p.reach + p.room, l.inputs)) {}
    // Zeros, with room for what tiles read beyond the last.
    Number* numbers(int64_t rows, int64_t width) {
        return (Number*)scratch.take(M::floats((rows + M::ROWS) * width + BLOCK), true);
    }
    float* floats(int64_t width) { return scratch.take(BLOCK * width, true); }

    void begin(int64_t sequence) {
        const int64_t size = l.places * l.inputs;
        M::convert(size, l.x + sequence * size, x + p.reach * l.inputs);
    }
    // The places that a tap looks at from the one at ``top`` on.
    const Number* seen(size_t i, int64_t top) const { return x + (p.reach + top - l.back(p.taps[i])) * l.inputs; }
    const Number* attended(int64_t rows, int64_t place, Number* to) const {
        return M::converted(rows * l.reads, l.attended + place * l.reads, to);
    }
    // to += the sum over taps of what they see, ``seen(tap)``, @ their matrices.
    template <class F>
    void multiply_add_taps(int64_t rows, const F& seen, int64_t step, const std::vector<Matrix>& m, float* to) const {
        constexpr size_t MOST = 8;
        for (size_t first = 0; first < p.taps.size(); first += MOST) {
            const size_t count = std::min(MOST, p.taps.size() - first);
            const Number* a[MOST];
            for (size_t i = 0; i < count; i++) a[i] = seen(first + i);
            M::multiply_add(rows, count, a, step, l.packed, &m[first], to);
        }
    }
    void multiply_add(int64_t rows, const Number* a, int64_t step, const Matrix& m, float* to) const {
        M::multiply_add(rows, 1, &a, step, l.packed, &m, to);
    }
};

inline void fill_rows(int64_t rows, int64_t width, const float* row, float* to) {
    for (int64_t r = 0; r < rows; r++) std::memcpy(to + r * width, row, width * sizeof(float));
}

template <class M>
struct Forward : Buffers<M> {
    typedef typename M::Number Number;
    float *z, *active, *gated, *out, *bias, *out_bias;
    Number *gate, *read;

    Forward(Scratch& scratch, const Layer& l) : Buffers<M>(scratch, l) {
        const auto& p = this->p;
        z = this->floats(p.z), active = this->floats(p.z), gated = this->floats(p.gates), out = this->floats(p.outputs);
        bias = scratch.take(p.z, true), out_bias = scratch.take(p.outputs, true);
        gate = this->numbers(BLOCK, p.gates), read = this->numbers(BLOCK, l.reads);
        if (out_bias && l.out) std::copy(l.out_bias, l.out_bias + l.planes + l.skip, out_bias);
    }

    void run(int64_t sequence) {
        const Layer& l = this->l;
        const auto& p = this->p;
        this->begin(sequence);
        const float* own = l.bias + sequence % l.tasks * l.pre();
        for (int64_t c = 0; c < l.pre(); c++) bias[l.index(c)] = own[c];
        for (int64_t top = 0; top < l.places; top += BLOCK) {
            const int64_t rows = std::min(BLOCK, l.places - top), place = sequence * l.places + top;
            fill_rows(rows, p.z, bias, z);
            this->multiply_add_taps(rows, [&](size_t i) { return this->seen(i, top); }, l.inputs, p.forth, z);
            if (l.reads) this->multiply_add(rows, this->attended(rows, place, read), l.reads, p.forth[p.read], z);
            if (l.multiplicative)
                units(rows, place);
            else
                gates(rows, place);
            if (l.saved) M::convert(rows * p.z, active, (Number*)(l.saved + sequence * p.saved) + top * p.z);
        }
    }

   private:
    void gates(int64_t rows, int64_t place) {
        const Layer& l = this->l;
        const auto& p = this->p;
        activate(rows * p.z / WIDTH, z, active, gated);
        fill_rows(rows, p.outputs, out_bias, out);
        this->multiply_add(rows, M::converted(rows * p.gates, gated, gate), p.gates, p.forth[p.out], out);
        rows_out(rows, l.planes, out, p.outputs, l.residual ? l.x + place * l.planes : nullptr,
                 l.new_x + place * l.planes);
        rows_out(rows, l.skip, out + l.planes, p.outputs, l.skip_sum ? l.skip_sum + place * l.skip : nullptr,
                 l.skips + place * l.skip);
    }
    void units(int64_t rows, int64_t place) {
        const Layer& l = this->l;
        const auto& p = this->p;
        rows_in(rows, l.planes, l.x + place * l.planes, gated, p.gates);
        for (int64_t c = 0; c < rows * p.gates; c += WIDTH) {
            const float* from = z + 4 * c;
            float* to = active + 4 * c;
            const V output = sigmoid(load(from)), keep = sigmoid(load(from + WIDTH));
            const V write = sigmoid(load(from + 2 * WIDTH)), update = hyperbolic_tangent(load(from + 3 * WIDTH));
            store(to, output), store(to + WIDTH, keep), store(to + 2 * WIDTH, write), store(to + 3 * WIDTH, update);
            store(out + c, output * hyperbolic_tangent(keep * load(gated + c) + write * update));
        }
        rows_out(rows, l.planes, out, p.gates, nullptr, l.new_x + place * l.planes);
    }
};

template <class M>
struct Backward : Buffers<M> {
    typedef typename M::Number Number;
    int64_t wide_step;
    float *outs, *wide, *back, *reads, *kept, *totals, *sums;
    Number *slopes, *gate, *out, *read, *turned, *pairs;  // slopes: of all pre-activations, and ``reach`` of zeros

    Backward(Scratch& scratch, const Layer& l, int64_t thread) : Buffers<M>(scratch, l) {
        const auto& p = this->p;
        wide_step = padded(p.gates);
        outs = this->floats(p.outputs), wide = this->floats(wide_step), back = this->floats(padded(l.inputs));
        reads = this->floats(padded(l.reads)), kept = this->floats(p.gates), totals = scratch.take(p.z, true);
        slopes = this->numbers(p.room + p.reach, p.z), gate = this->numbers(BLOCK, p.gates);
        out = this->numbers(BLOCK, p.outputs), read = this->numbers(BLOCK, l.reads);
        turned = this->numbers(BLOCK + DEPTH_ROOM, padded(std::max({l.inputs, p.gates, l.reads})));
        pairs = this->numbers(BLOCK, std::max(p.z, p.outputs));
        sums = l.sums + thread * p.sums;
    }
    static constexpr int64_t DEPTH_ROOM = 32;

    void run(int64_t sequence) {
        const Layer& l = this->l;
        const auto& p = this->p;
        this->begin(sequence);
        std::memset(totals, 0, p.z * sizeof(float));
        const Number* saved = (const Number*)(l.saved + sequence * p.saved);
        for (int64_t top = 0; top < l.places; top += BLOCK) {
            const int64_t rows = std::min(BLOCK, l.places - top), place = sequence * l.places + top;
            Number* own = slopes + top * p.z;
            if (l.multiplicative)
                units(rows, place, saved + top * p.z, own);
            else
                gates(rows, place, saved + top * p.z, own);
            M::pair(rows, p.z, own, pairs);
            for (size_t i = 0; i < p.taps.size(); i++) add(p.sum[i], rows, this->seen(i, top), l.inputs, own);
            if (l.reads) add(p.sum[p.read], rows, this->attended(rows, place, read), l.reads, own);
            if (l.grad_attended) {
                float* to = l.grad_attended + place * l.reads;
                std::memset(reads, 0, rows * padded(l.reads) * sizeof(float));
                this->multiply_add(rows, own, p.z, p.back[p.read], reads);
                rows_out(rows, l.reads, reads, padded(l.reads), to, to);
            }
        }
        for (int64_t c = 0; c < l.pre(); c++) l.grad_bias[sequence * l.pre() + c] = totals[l.index(c)];
        if (l.grad_x) inputs(sequence);
    }

   private:
    // The gradients of pre-activations, to ``own``, and of the outputs' weights.
    void gates(int64_t rows, int64_t place, const Number* saved, Number* own) {
        const Layer& l = this->l;
        const auto& p = this->p;
        if (l.grad_new_x) rows_in(rows, l.planes, l.grad_new_x + place * l.planes, outs, p.outputs);
        if (l.grad_skips) rows_in(rows, l.skip, l.grad_skips + place * l.skip, outs + l.planes, p.outputs);
        if (rows < BLOCK) std::memset(outs + rows * p.outputs, 0, (BLOCK - rows) * p.outputs * sizeof(float));
        add_rows(rows, p.outputs, outs, sums + p.out_bias);
        const Number* given = M::converted(BLOCK * p.outputs, outs, out);
        std::memset(wide, 0, rows * wide_step * sizeof(float));
        this->multiply_add(rows, given, p.outputs, p.back[p.out], wide);
        through_gates<false, Number>(rows, p.z, p.gates, wide, wide_step, saved, gate, own, totals, nullptr);
        M::pair(rows, p.outputs, given, pairs);
        add(p.sum[p.out], rows, gate, p.gates, given);
    }
    // The gradients of pre-activations, to ``own``, and those past the gates, to ``grad_x``.
    void units(int64_t rows, int64_t place, const Number* saved, Number* own) {
        const Layer& l = this->l;
        const auto& p = this->p;
        if (l.grad_new_x) rows_in(rows, l.planes, l.grad_new_x + place * l.planes, outs, p.gates);
        rows_in(rows, l.planes, l.x + place * l.planes, kept, p.gates);
        for (int64_t first = 0; first < p.gates; first += WIDTH) {
            V sum[4];
            for (int i = 0; i < 4; i++) sum[i] = load(totals + 4 * first + i * WIDTH);
            for (int64_t c = first; c < rows * p.gates; c += p.gates) {
                V active[4];
                for (int i = 0; i < 4; i++) active[i] = load_number(saved + 4 * c + i * WIDTH);
                const V output = active[0], keep = active[1], write = active[2], update = active[3];
                const V before = load(kept + c), given = load(outs + c);
                const V squashed = hyperbolic_tangent(keep * before + write * update);
                const V through = given * output * (1.0f - squashed * squashed);
                const V slope[] = {given * squashed * output * (1.0f - output), through * before * keep * (1.0f - keep),
                                   through * update * write * (1.0f - write),
                                   through * write * (1.0f - update * update)};
                for (int i = 0; i < 4; i++) sum[i] += slope[i], store_number(own + 4 * c + i * WIDTH, slope[i]);
                store(kept + c, through * keep);
            }
            for (int i = 0; i < 4; i++) store(totals + 4 * first + i * WIDTH, sum[i]);
        }
        if (l.grad_x) rows_out(rows, l.planes, kept, p.gates, nullptr, l.grad_x + place * l.planes);
    }
    void add(const Matrix& sum, int64_t rows, const Number* a, int64_t step, const Number* own) {
        M::add_gradient(rows, a, step, own, sum, sums, turned, pairs);
    }
    // The gradient of a place, of those that look at it, which come later.
    void inputs(int64_t sequence) {
        const Layer& l = this->l;
        const auto& p = this->p;
        const int64_t columns = padded(l.inputs), C = l.inputs;
        for (int64_t top = 0; top < l.places; top += BLOCK) {
            const int64_t rows = std::min(BLOCK, l.places - top), place = sequence * l.places + top;
            std::memset(back, 0, rows * columns * sizeof(float));
            this->multiply_add_taps(
                rows, [&](size_t i) { return slopes + (top + l.back(p.taps[i])) * p.z; }, p.z, p.back, back);
            const float* past = l.multiplicative ? l.grad_x : l.residual ? l.grad_new_x : nullptr;
            rows_out(rows, C, back, columns, past ? past + place * C : nullptr, l.grad_x + place * C);
        }
    }
};

// ``call(M())`` of the products that are asked for.
template <class F>
void with_products([[maybe_unused]] const Layer& l, const F& call) {
#ifdef HAS_AMX
    if (l.amx) return call(Bf16());
#endif
    call(Float32());
}

// ``call(M(), from, to)`` for ranges of sequences that make a layer's buffers worth while and stay in the second cache.
template <class F>
void in_groups(const Layer& l, int64_t first, int64_t last, const F& call) {
    const int64_t group = std::max<int64_t>(1, 512 / l.places);
    with_products(l, [&](auto products) {
        [[maybe_unused]] const typename decltype(products)::Scope scope;
        for (int64_t start = first; start < last; start += group) call(products, start, std::min(start + group, last));
    });
}

extern "C" {
// Whether products of bfloat16 numbers can be had: ``amx`` may be 1.
int64_t layer_amx() {
#ifdef HAS_AMX
    return may_use_tiles();
#else
    return 0;
#endif
}

// Numbers in ``packed``; in ``sums``, a thread; and in ``saved``, a sequence.
void layer_sizes(const Layer* l, int64_t* sizes) {
    with_products(*l, [&](auto products) {
        const Plan<decltype(products)> p(*l);
        sizes[0] = decltype(products)::floats(p.packed), sizes[1] = p.sums, sizes[2] = p.saved;
    });
}

void layer_pack(const Layer* l) {
    with_products(*l, [&](auto products) { pack<decltype(products)>(*l); });
}

// ``count`` layers, each of which is given what the one before it gives.
void layers_forward(const Layer* layers, int64_t count, int64_t, int64_t first, int64_t last) {
    in_groups(*layers, first, last, [&](auto products, int64_t start, int64_t end) {
        for (const Layer* l = layers; l < layers + count; l++) {
            auto own = in_scratch<Forward<decltype(products)>>(*l);
            for (int64_t sequence = start; sequence < end; sequence++) own.run(sequence);
        }
    });
}

void layers_backward(const Layer* layers, int64_t count, int64_t thread, int64_t first, int64_t last) {
    in_groups(*layers, first, last, [&](auto products, int64_t start, int64_t end) {
        for (const Layer* l = layers + count; l-- > layers;) {
            auto own = in_scratch<Backward<decltype(products)>>(*l, thread);
            for (int64_t sequence = start; sequence < end; sequence++) own.run(sequence);
        }
    });
}

// After all threads: the gradients of the weights.
void layer_finish(const Layer* l) {
    with_products(*l, [&](auto products) { finish<decltype(products)>(*l); });
}
}
