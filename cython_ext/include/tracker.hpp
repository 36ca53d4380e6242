// Who holds what of the memory that is handed to a runtime (requirements S0.37–S0.46).
//
// Two numbers are always counted.  A record of every allocation, and the log of it, exist only while the tracker is open;
// closed, this is plain calloc and free.  One mutex, held for the bookkeeping only, never while a runtime is called.
#ifndef RKVISOR_TRACKER_HPP
#define RKVISOR_TRACKER_HPP

#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <string>
#include <unordered_map>

namespace rkvisor {

// Where memory was asked for: literals, which live for ever.
struct Site {
    const char *function;
    const char *file;
    int line;
};

// The site of the line that it stands in.
#define RKVISOR_SITE(function) (rkvisor::Site{(function), __FILE__, __LINE__})

struct Record {
    std::size_t size;
    Site site;
    std::int64_t timestamp_ms;  // since 1970
    bool is_array;
};

struct TrackerStatus {
    bool is_open;
    std::size_t count, bytes;              // held now, of those recorded
    std::size_t allocations, total_bytes;  // since it was opened
    std::size_t warnings;                  // frees of what was not held
};

class Tracker {
  public:
    static Tracker &get() noexcept {
        static auto *tracker = new Tracker;  // never destroyed: a runtime's thread may outlive everything
        return *tracker;
    }

    // Begin to record, into the file at `path`, which is begun anew.  Idempotent.  Returns 0 or an errno.
    int open(const char *path) noexcept {
        const std::lock_guard<std::mutex> lock(mutex_);
        if (log_ != nullptr) return 0;
        log_ = std::fopen(path, "we");
        if (log_ == nullptr) return errno;
        generation_ += 1;
        status_ = TrackerStatus{true, 0, 0, 0, 0, 0};
        return 0;
    }

    // `count` zeroed elements of `size` bytes, NULL when memory is short.  ticket: to be given back with them.
    void *allocate(std::size_t count, std::size_t size, Site site, std::uint64_t &ticket) noexcept {
        void *memory = std::calloc(count != 0 ? count : 1, size != 0 ? size : 1);
        if (memory == nullptr) return nullptr;
        ticket = remember(memory, count * size, site, count > 1);
        held_count() += 1;
        held_bytes() += count * size;
        return memory;
    }

    // Free what allocate() returned.  NULL is nothing; what is not held (any more) is warned of and left alone.
    void release(void *memory, std::size_t size, std::uint64_t ticket) noexcept {
        if (memory == nullptr) return;
        if (ticket != 0 && !forget(memory, ticket)) return;
        held_count() -= 1;
        held_bytes() -= size;
        std::free(memory);
    }

    // Free memory that is recorded, whoever holds it, as a wrong program would; anything else is warned of.
    bool free_tracked(void *memory) noexcept {
        std::size_t size = 0;
        std::uint64_t ticket = 1;
        {
            const std::lock_guard<std::mutex> lock(mutex_);
            ticket = generation_;
            const auto found = records_.find(memory);
            if (found != records_.end()) size = found->second.size;
        }
        if (ticket == 0 || !forget(memory, ticket)) return false;
        held_count() -= 1;
        held_bytes() -= size;
        std::free(memory);
        return true;
    }

    // Free what is still recorded, after a line for each, and stop recording.  Returns how many there were.
    std::size_t close() noexcept {
        const std::lock_guard<std::mutex> lock(mutex_);
        if (log_ == nullptr) return 0;
        const std::size_t leaks = records_.size();
        for (auto &[memory, record] : records_) {
            line("LEAK", memory, record);
            held_count() -= 1;
            held_bytes() -= record.size;
            std::free(memory);
        }
        if (leaks > 0) std::fprintf(log_, "TOTAL LEAKS: %zu allocations\n", leaks);
        records_.clear();
        std::fclose(log_);
        log_ = nullptr;
        status_.is_open = false;
        status_.count = status_.bytes = 0;
        return leaks;
    }

    TrackerStatus status() noexcept {
        const std::lock_guard<std::mutex> lock(mutex_);
        return status_;
    }

    static std::atomic<std::size_t> &held_count() noexcept {
        static std::atomic<std::size_t> count{0};
        return count;
    }
    static std::atomic<std::size_t> &held_bytes() noexcept {
        static std::atomic<std::size_t> bytes{0};
        return bytes;
    }

  private:
    Tracker() = default;

    // The generation that `memory` was recorded in, 0 where it was not.
    std::uint64_t remember(void *memory, std::size_t size, Site site, bool is_array) noexcept try {
        const std::lock_guard<std::mutex> lock(mutex_);
        if (log_ == nullptr) return 0;
        const Record record{size, site, now_ms(), is_array};
        records_.insert_or_assign(memory, record);
        status_.allocations += 1;
        status_.total_bytes += size;
        status_.count += 1;
        status_.bytes += size;
        line("ALLOC", memory, record);
        return generation_;
    } catch (...) {  // no memory for the record: it goes unrecorded
        return 0;
    }

    bool forget(void *memory, std::uint64_t ticket) noexcept {
        const std::lock_guard<std::mutex> lock(mutex_);
        if (log_ == nullptr || ticket != generation_) return false;  // close() freed it
        const auto found = records_.find(memory);
        if (found == records_.end()) {
            status_.warnings += 1;
            std::fprintf(log_, "WARNING: free of untracked pointer %p\n", memory);
            std::fflush(log_);
            return false;
        }
        line("FREE", memory, found->second);
        status_.count -= 1;
        status_.bytes -= found->second.size;
        records_.erase(found);
        return true;
    }

    static std::int64_t now_ms() noexcept {
        using namespace std::chrono;
        return duration_cast<milliseconds>(system_clock::now().time_since_epoch()).count();
    }

    void line(const char *what, const void *memory, const Record &record) noexcept {
        const char *slash = std::strrchr(record.site.file, '/');
        std::fprintf(log_, "[%lld] %s: %p (%zu bytes%s) in %s at %s:%d\n", static_cast<long long>(now_ms()),
                     what, memory, record.size, record.is_array ? ", array" : "", record.site.function,
                     slash != nullptr ? slash + 1 : record.site.file, record.site.line);
        std::fflush(log_);
    }

    std::mutex mutex_;
    std::unordered_map<void *, Record> records_;
    std::FILE *log_ = nullptr;
    std::uint64_t generation_ = 0;
    TrackerStatus status_{};
};

}  // namespace rkvisor

#endif
