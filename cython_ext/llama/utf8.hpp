// Whole UTF-8 characters out of token pieces that may split them.
#ifndef RKVISOR_LLAMA_UTF8_HPP
#define RKVISOR_LLAMA_UTF8_HPP

#include <string>
#include <string_view>

namespace rkvisor {

class Utf8Assembler {
public:
    // The characters that `piece` completes, possibly none.  A sequence that cannot become valid becomes U+FFFD, as
    // does NUL, which a C string cannot carry.
    std::string push(std::string_view piece) {
        pending_.append(piece);
        std::string whole;
        size_t at = 0;
        while (at < pending_.size()) {
            bool is_valid = true;
            const size_t size = scan(at, is_valid);
            if (size == 0) break;
            if (is_valid) {
                whole.append(pending_, at, size);
            } else {
                whole += "\xEF\xBF\xBD";
            }
            at += size;
        }
        pending_.erase(0, at);
        return whole;
    }

    bool is_waiting() const { return !pending_.empty(); }

private:
    // Bytes of the sequence at `at`: 0 when more input decides, else its length, or that of its broken head.
    size_t scan(size_t at, bool &is_valid) const {
        const auto byte = [this](size_t index) { return static_cast<unsigned char>(pending_[index]); };
        const unsigned char lead = byte(at);
        is_valid = lead != 0;
        if (lead < 0x80) return 1;
        is_valid = false;
        const size_t length = lead >= 0xC2 && lead <= 0xDF   ? 2
                              : lead >= 0xE0 && lead <= 0xEF ? 3
                              : lead >= 0xF0 && lead <= 0xF4 ? 4
                                                             : 0;
        if (length == 0) return 1;
        for (size_t offset = 1; offset < length; ++offset) {
            if (at + offset == pending_.size()) return 0;
            // The second byte is narrower for some leads: no overlong forms, no surrogates, nothing above U+10FFFF.
            const unsigned char low = offset != 1 ? 0x80 : lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
            const unsigned char high = offset != 1 ? 0xBF : lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
            if (byte(at + offset) < low || byte(at + offset) > high) return offset;
        }
        is_valid = true;
        return length;
    }

    std::string pending_;
};

}  // namespace rkvisor

#endif
