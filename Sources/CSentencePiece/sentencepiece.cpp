#include <sentencepiece_processor.h>
#include <sentencepiece_trainer.h>

#include <cstdlib>
#include <cstring>
#include <exception>
#include <string>
#include <unordered_map>
#include <vector>

#include "include/monet_sentencepiece.h"

struct monet_sp_processor {
    sentencepiece::SentencePieceProcessor model;
};

namespace {

template <typename T>
T *copied(const T *data, size_t count) {
    T *out = static_cast<T *>(std::malloc(count * sizeof(T) + 1));
    if (out != nullptr && count > 0) std::memcpy(out, data, count * sizeof(T));
    return out;
}

char *message(const std::string &text) { return copied(text.c_str(), text.size() + 1); }

class Sentences : public sentencepiece::SentenceIterator {
public:
    Sentences(const char *const *sentences, const size_t *counts, size_t count)
        : sentences_(sentences), counts_(counts), count_(count) { load(); }
    bool done() const override { return index_ >= count_; }
    void Next() override { ++index_; load(); }
    const std::string &value() const override { return value_; }
    sentencepiece::util::Status status() const override { return {}; }

private:
    void load() { if (index_ < count_) value_.assign(sentences_[index_], counts_[index_]); }
    const char *const *sentences_;
    const size_t *counts_;
    size_t count_, index_ = 0;
    std::string value_;
};

}  // namespace

extern "C" {

void monet_sp_free(void *pointer) { std::free(pointer); }

monet_sp_processor *monet_sp_load(const char *bytes, size_t count, char **error) {
    try {
        auto *processor = new monet_sp_processor;
        const auto status = processor->model.LoadFromSerializedProto(absl::string_view(bytes, count));
        if (status.ok()) return processor;
        *error = message(status.ToString());
        delete processor;
    } catch (const std::exception &failure) {
        *error = message(failure.what());
    }
    return nullptr;
}

void monet_sp_destroy(monet_sp_processor *processor) { delete processor; }

int32_t monet_sp_vocabulary_size(const monet_sp_processor *p) { return p->model.GetPieceSize(); }
int32_t monet_sp_unknown_id(const monet_sp_processor *p) { return p->model.unk_id(); }
int32_t monet_sp_begin_id(const monet_sp_processor *p) { return p->model.bos_id(); }
int32_t monet_sp_end_id(const monet_sp_processor *p) { return p->model.eos_id(); }
int32_t monet_sp_pad_id(const monet_sp_processor *p) { return p->model.pad_id(); }

int32_t monet_sp_piece_kind(const monet_sp_processor *p, int32_t id) {
    if (p->model.IsUnknown(id)) return 1;
    if (p->model.IsControl(id)) return 2;
    if (p->model.IsByte(id)) return 3;
    if (p->model.IsUnused(id)) return 4;
    return 0;
}

const char *monet_sp_piece(const monet_sp_processor *p, int32_t id, size_t *count) {
    const std::string &piece = p->model.IdToPiece(id);
    *count = piece.size();
    return piece.data();
}

int32_t monet_sp_id_of_piece(const monet_sp_processor *p, const char *piece, size_t count) {
    return p->model.PieceToId(absl::string_view(piece, count));
}

int64_t monet_sp_encode(const monet_sp_processor *p, const char *text, size_t count, int32_t **out, char **error) {
    try {
        std::vector<int> ids;
        const auto status = p->model.Encode(absl::string_view(text, count), &ids);
        if (status.ok()) {
            *out = copied(ids.data(), ids.size());
            return static_cast<int64_t>(ids.size());
        }
        *error = message(status.ToString());
    } catch (const std::exception &failure) {
        *error = message(failure.what());
    }
    return -1;
}

int64_t monet_sp_decode(const monet_sp_processor *p, const int32_t *ids, size_t count, char **out, char **error) {
    try {
        std::string text;
        const auto status = p->model.Decode(std::vector<int>(ids, ids + count), &text);
        if (status.ok()) {
            *out = copied(text.data(), text.size());
            return static_cast<int64_t>(text.size());
        }
        *error = message(status.ToString());
    } catch (const std::exception &failure) {
        *error = message(failure.what());
    }
    return -1;
}

int64_t monet_sp_train(const char *const *options, size_t option_count, const char *const *sentences,
                       const size_t *counts, size_t sentence_count, char **out, char **error) {
    try {
        // The overload that takes one string logs it before it knows the log level.
        std::unordered_map<std::string, std::string> arguments;
        for (size_t n = 0; n < option_count; n++) {
            const std::string option = options[n];
            const auto equals = option.find('=');
            if (equals != std::string::npos) arguments[option.substr(0, equals)] = option.substr(equals + 1);
        }
        Sentences iterator(sentences, counts, sentence_count);
        std::string model;
        const auto status = sentencepiece::SentencePieceTrainer::Train(arguments, &iterator, &model);
        if (status.ok()) {
            *out = copied(model.data(), model.size());
            return static_cast<int64_t>(model.size());
        }
        *error = message(status.ToString());
    } catch (const std::exception &failure) {
        *error = message(failure.what());
    }
    return -1;
}

}  // extern "C"
