// The room of application.py with Socket.IO and its Redis adapter.
const { createServer } = require("http");
const { Server } = require("socket.io");
const { createAdapter } = require("@socket.io/redis-adapter");
const { createClient } = require("redis");

async function main() {
  const publisher = createClient({ url: process.env.BENCHMARK_REDIS_URL });
  const subscriber = publisher.duplicate();
  await Promise.all([publisher.connect(), subscriber.connect()]);
  const http = createServer();
  const io = new Server(http, { adapter: createAdapter(publisher, subscriber) });
  io.on("connection", (socket) => {
    socket.join("room");
    socket.on("burst", async (request) => {
      const [count, size] = request.split(" ").map(Number);
      for (let i = 0; i < count; i++) {
        io.to("room").emit("message", "x".repeat(size));
        await new Promise(setImmediate);
      }
    });
  });
  http.listen(0, "127.0.0.1", () => console.log(`listening on ${http.address().port}`));
}

main();
