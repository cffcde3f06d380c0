#include "telemetry/http_server.h"

#include <httplib.h>
#include <pthread.h>

#include <cerrno>
#include <condition_variable>
#include <csignal>
#include <cstring>
#include <deque>
#include <future>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

namespace sluice::telemetry {
namespace {

constexpr size_t kThreads = 3;
constexpr time_t kTimeoutSeconds = 5;

// httplib's own pool queues without bound. This one makes the accepting thread wait instead.
class BoundedPool : public httplib::TaskQueue {
 public:
  explicit BoundedPool(size_t capacity) : capacity_(capacity) {
    for (size_t i = 0; i < kThreads; ++i) threads_.emplace_back([this] { Serve(); });
  }

  void enqueue(std::function<void()> task) override {
    std::unique_lock lock(mutex_);
    has_room_.wait(lock, [&] { return tasks_.size() < capacity_; });
    tasks_.push_back(std::move(task));
    has_work_.notify_one();
  }

  void shutdown() override {
    {
      const std::lock_guard lock(mutex_);
      ending_ = true;
    }
    has_work_.notify_all();
    for (std::thread& thread : threads_) thread.join();
  }

 private:
  void Serve() {
    for (;;) {
      std::function<void()> task;
      {
        std::unique_lock lock(mutex_);
        has_work_.wait(lock, [&] { return ending_ || !tasks_.empty(); });
        if (tasks_.empty()) return;  // what was accepted is still answered
        task = std::move(tasks_.front());
        tasks_.pop_front();
      }
      has_room_.notify_one();
      task();
    }
  }

  const size_t capacity_;
  std::mutex mutex_;
  std::condition_variable has_work_, has_room_;
  std::deque<std::function<void()>> tasks_;
  bool ending_ = false;
  std::vector<std::thread> threads_;
};

// Threads inherit the mask: signals stay with the thread that waits for them.
class BlockSignals {
 public:
  BlockSignals() {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before_);
  }
  ~BlockSignals() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }

 private:
  sigset_t before_;
};

void Fill(const HttpReply& reply, httplib::Response& response) {
  response.status = reply.status;
  response.set_content(reply.body, reply.content_type);
}

// httplib takes patterns; ours are literal.
std::string Escaped(const std::string& path) {
  std::string out;
  for (const char c : path) {
    if (std::strchr(".^$|()[]{}*+?\\", c) != nullptr) out += '\\';
    out += c;
  }
  return out;
}

}  // namespace

struct HttpServer::Impl {
  httplib::Server server;
  std::mutex handler_mutex;  // one handler at a time
  std::function<HttpReply(const std::string&)> other;
  std::thread thread;
  uint16_t port = 0;

  void Configure() {
    // Without httplib's SO_REUSEPORT, with which a second process would share a taken port.
    server.set_socket_options([](int fd) {
      const int yes = 1;
      setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    });
    server.set_read_timeout(kTimeoutSeconds);
    server.set_write_timeout(kTimeoutSeconds);
    server.set_keep_alive_max_count(1);  // no idle connection may hold one of the few threads
    server.set_payload_max_length(kMaxBody);
    server.set_error_handler([this](const httplib::Request& request, httplib::Response& response) {
      if (response.status == 404 && response.body.empty() && other) {
        Fill(other(request.path), response);
      }
    });
  }

  void Listen() {
    std::promise<void> running;
    server.new_task_queue = [&running] {
      auto* pool = new BoundedPool(kQueueLength);  // httplib deletes it
      running.set_value();
      return pool;
    };
    const BlockSignals blocked;
    thread = std::thread([this] { server.listen_after_bind(); });
    // stop() is lost when it comes before the loop runs, so do not return earlier than that.
    running.get_future().wait();
  }
};

HttpServer::HttpServer() : impl_(std::make_unique<Impl>()) { impl_->Configure(); }
HttpServer::~HttpServer() { Stop(); }

void HttpServer::Handle(const std::string& path, Handler handler) {
  impl_->server.Get(Escaped(path),
                    [this, handler = std::move(handler)](const httplib::Request& request,
                                                         httplib::Response& response) {
                      HttpQuery query(request.params.begin(), request.params.end());
                      const std::lock_guard lock(impl_->handler_mutex);
                      Fill(handler(query), response);
                    });
}

void HttpServer::HandlePost(const std::string& path, PostHandler handler) {
  impl_->server.Post(Escaped(path),
                     [this, handler = std::move(handler)](const httplib::Request& request,
                                                          httplib::Response& response) {
                       const std::lock_guard lock(impl_->handler_mutex);
                       Fill(handler(request.body), response);
                     });
}

void HttpServer::HandleStream(const std::string& path, StreamHandler handler) {
  impl_->server.Post(
      Escaped(path), [this, handler = std::move(handler)](const httplib::Request& request,
                                                          httplib::Response& response) {
        std::variant<HttpReply, HttpStream> answer;
        {
          const std::lock_guard lock(impl_->handler_mutex);
          answer = handler(request.body);
        }
        if (const auto* reply = std::get_if<HttpReply>(&answer)) return Fill(*reply, response);
        auto stream = std::make_shared<HttpStream>(std::get<HttpStream>(std::move(answer)));
        response.set_chunked_content_provider(
            stream->content_type,
            [stream](size_t, httplib::DataSink& sink) {
              std::string out;
              const bool more = stream->next(out);
              if (!out.empty() && !sink.write(out.data(), out.size())) return false;
              if (!more) sink.done();
              return true;
            },
            [stream](bool) { stream->end(); });
      });
}

void HttpServer::HandleOther(std::function<HttpReply(const std::string&)> handler) {
  impl_->other = std::move(handler);
}

absl::Status HttpServer::StartTcp(const std::string& address, uint16_t port) {
  errno = 0;
  const int bound = port == 0 ? impl_->server.bind_to_any_port(address)
                    : impl_->server.bind_to_port(address, port) ? port
                                                                : -1;
  if (bound < 0) {
    const int error = errno;
    const std::string where = absl::StrCat(address, " port ", port);
    if (error == EADDRINUSE) {
      return absl::AlreadyExistsError(
          absl::StrCat(where, " is taken by another program (see: ss -ltnp)"));
    }
    // In a network namespace that nobody has prepared, such as a new container's, lo is down.
    const char* const hint = error == EADDRNOTAVAIL
                                 ? " (is its interface up? 127.0.0.1 wants: ip link set lo up)"
                                 : "";
    return absl::UnavailableError(
        absl::StrCat("cannot listen on ", where, ": ",
                     error == 0 ? "not an address of this machine" : std::strerror(error), hint));
  }
  impl_->port = static_cast<uint16_t>(bound);
  impl_->Listen();
  return absl::OkStatus();
}

absl::Status HttpServer::StartUnix(const std::string& path) {
  impl_->server.set_address_family(AF_UNIX);
  errno = 0;
  if (!impl_->server.bind_to_port(path, 1)) {  // the port means nothing, but must not be 0
    const int error = errno;
    return absl::UnavailableError(
        absl::StrCat("cannot listen on ", path, ": ",
                     error == 0 ? "the path is too long for a socket" : std::strerror(error)));
  }
  impl_->Listen();
  return absl::OkStatus();
}

void HttpServer::Stop() {
  if (!impl_->thread.joinable()) return;
  impl_->server.stop();
  impl_->thread.join();
}

uint16_t HttpServer::port() const { return impl_->port; }

}  // namespace sluice::telemetry
