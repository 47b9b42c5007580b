# A port of the loopback interface that nobody has. Sourced by the scripts that start servers.
free_port() {
  python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}
