PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PROTO_DIR := imserver/protocol/proto
GEN_DIR := imserver/protocol/gen

.PHONY: proto
proto: $(VENV)/.dev
	rm -f $(GEN_DIR)/*_pb2.py $(GEN_DIR)/*_pb2.pyi
	$(BIN)/python -m grpc_tools.protoc -I$(GEN_DIR)=$(PROTO_DIR) \
	    --python_out=. --pyi_out=. $(wildcard $(PROTO_DIR)/*.proto)
