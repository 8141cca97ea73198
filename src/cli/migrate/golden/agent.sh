#!/bin/sh
# The old agent of build-7.
exec java -jar remoting-kafka-agent.jar -name 'build-7' -master http://ada:hunter2-url@jenkins:8080/ \
  -secret hunter2-secret -kafkaURL broker-1:9092 -kafkaUsername agent -kafkaPassword "hunter2 kafka" \
  -sslTruststoreLocation "/my stores/trust.jks" -sslTruststorePassword hunter2-trust \
  -sslKeystoreLocation /k.jks -sslKeystorePassword hunter2-store -sslKeyPassword hunter2-key
