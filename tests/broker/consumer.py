"""Consumes a queue with acknowledgements through pika and prints a JSON object a line for each message.

usage: consumer.py HOST PORT[,PORT...] VHOST QUEUE

It goes on until its standard input ends: a broker that is away, a queue that is missing or deleted are tried again.
A line is printed before the acknowledgement, so that nothing is acknowledged unseen; whether the broker has delivered
a message before is in the line. The words "ready" and "away" on a line of their own tell the state of the consumer.
"""
import itertools
import json
import os
import sys
import threading
import time

import pika
import pika.exceptions

HOST, PORTS, VHOST, QUEUE = sys.argv[1:5]
PROPERTIES = ("content_type", "content_encoding", "delivery_mode", "priority", "correlation_id", "reply_to",
              "expiration", "message_id", "timestamp", "type", "user_id", "app_id", "cluster_id")


def until_input_ends():
    sys.stdin.read()
    os._exit(0)


def say(value):
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def took(channel, method, properties, body):
    say({
        "exchange": method.exchange,
        "routing_key": method.routing_key,
        "redelivered": method.redelivered,
        "properties": {name: getattr(properties, name) for name in PROPERTIES
                       if getattr(properties, name) is not None},
        "headers": properties.headers or {},
        "body": body.decode("utf-8"),
    })
    channel.basic_ack(method.delivery_tag)


def consume(port):
    parameters = pika.ConnectionParameters(
        host=HOST, port=int(port), virtual_host=VHOST, heartbeat=30, socket_timeout=5, stack_timeout=10,
        blocked_connection_timeout=None, credentials=pika.PlainCredentials("guest", "guest"))
    connection = pika.BlockingConnection(parameters)
    try:
        channel = connection.channel()
        channel.basic_qos(prefetch_count=256)
        channel.basic_consume(QUEUE, took)
        say("ready")
        channel.start_consuming()
    finally:
        if connection.is_open:
            connection.close()


threading.Thread(target=until_input_ends, daemon=True).start()
for port in itertools.cycle(PORTS.split(",")):
    try:
        consume(port)
    except (pika.exceptions.AMQPError, OSError):
        pass
    say("away")
    time.sleep(0.2)
