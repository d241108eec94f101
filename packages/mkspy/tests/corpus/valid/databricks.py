# Databricks notebook source
import dspy

ask = dspy.Predict("question -> answer")


def run(table):
    return [ask(question=row.question) for row in spark.table(table).collect()]  # noqa: F821
