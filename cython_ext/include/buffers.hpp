// The one place where the binding allocates memory that it hands to a runtime.
#ifndef RKVISOR_BUFFERS_HPP
#define RKVISOR_BUFFERS_HPP

#include <cstddef>
#include <cstdint>
#include <vector>

#include "tracker.hpp"

namespace rkvisor {

// Zeroed memory that lives until clear() or the end of the object; a runtime may keep pointers into it that long.
class Buffers {
  public:
    Buffers() = default;
    Buffers(const Buffers &) = delete;
    Buffers &operator=(const Buffers &) = delete;
    ~Buffers() { clear(); }

    // `count` elements of `size` bytes, aligned for any type; NULL when memory is short.
    void *take(std::size_t count, std::size_t size, Site site) noexcept try {
        if (size != 0 && count > static_cast<std::size_t>(-1) / size) return nullptr;
        blocks_.reserve(blocks_.size() + 1);
        Block block{nullptr, count * size, 0};
        block.memory = Tracker::get().allocate(count, size, site, block.ticket);
        if (block.memory == nullptr) return nullptr;
        blocks_.push_back(block);
        return block.memory;
    } catch (...) {
        return nullptr;
    }

    template <class T> T *take(std::size_t count, Site site) noexcept {
        return static_cast<T *>(take(count, sizeof(T), site));
    }

    void clear() noexcept {
        for (const Block &block : blocks_) Tracker::get().release(block.memory, block.bytes, block.ticket);
        blocks_.clear();
    }

    // How many blocks of memory it holds.
    std::size_t count() const noexcept { return blocks_.size(); }

  private:
    struct Block {
        void *memory;
        std::size_t bytes;
        std::uint64_t ticket;
    };
    std::vector<Block> blocks_;
};

}  // namespace rkvisor

#endif
